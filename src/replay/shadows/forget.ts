import { sql, type Kysely, type RawBuilder, type Transaction } from "kysely";

import { partitions } from "../../change-feed/applied-log.ts";
import { inTenant } from "../../platform/db.ts";
import { TidegateError } from "../../platform/errors.ts";
import type { Database } from "../../platform/schema.ts";
import { laneIdOf } from "./log.ts";
import type { ShadowId } from "./register.ts";

export interface Standing {
  kind: "known" | "forgotten" | "unknown";
  /** Changes that are parked, held or under way in it. */
  openChanges: number;
}

export interface Forgetting {
  /** Who wants it so. */
  by: string;
  /** What is open in it is given up. */
  givesUp: boolean;
}

export async function readStanding(db: Kysely<Database>, id: ShadowId): Promise<Standing> {
  return await inTenant(db, id.tenantId, (trx) => standingOf(trx, id));
}

async function standingOf(trx: Transaction<Database>, { tenantId, upstreamId }: ShadowId): Promise<Standing> {
  const { rows } = await sql<{ is_known: boolean; is_forgotten: boolean; open_changes: string }>`
    select exists (
        select 1 from shadow where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
      ) as is_known, exists (
        select 1 from forgotten_shadow
        where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
      ) as is_forgotten, (
        select count(*) from delivery
        where tenant_id = ${tenantId} and client_id = any(${lanesOf({ tenantId, upstreamId })}::uuid[])
      ) as open_changes`.execute(trx);
  const {
    is_known: isKnown = false,
    is_forgotten: wasForgotten = false,
    open_changes: open = "0",
  } = rows[0] ?? {};
  const kind = isKnown ? "known" : wasForgotten ? "forgotten" : "unknown";
  return { kind, openChanges: isKnown ? Number(open) : 0 };
}

/**
 * Ends a shadow in one transaction: it is no more, its lanes are gone, and when it was the tenant's last nothing is logged
 * from then on. Whoever has one of its lanes in hand commits nothing more; calls under way may still take effect there.
 * What is left of it, `clearForgotten` removes. Of one that is forgotten, or was never there, nothing changes.
 *
 * @throws {TidegateError} `command-refused` when something is open in it, and is not given up.
 */
export async function forgetShadow(
  db: Kysely<Database>,
  id: ShadowId,
  { by, givesUp }: Forgetting,
): Promise<Standing> {
  const { tenantId, upstreamId } = id;
  return await inTenant(db, tenantId, async (trx) => {
    await lockShadow(trx, id);
    const standing = await standingOf(trx, id);
    if (standing.kind !== "known") return standing;
    if (standing.openChanges > 0 && !givesUp) throw stillOpen(standing);
    await sql`
      update command set done_at = clock_timestamp(), result = 'the shadow was forgotten'
      from lane l
      where l.tenant_id = ${tenantId} and l.upstream_id = ${upstreamId} and l.partition is not null
        and command.tenant_id = ${tenantId} and command.lane_id = l.lane_id and command.done_at is null`.execute(
      trx,
    );
    await sql`
      delete from lane where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and partition is not null`.execute(
      trx,
    );
    await sql`
      insert into forgotten_shadow (tenant_id, upstream_id, forgotten_by, open_changes)
      values (${tenantId}, ${upstreamId}, ${by}, ${standing.openChanges})`.execute(trx);
    await endLog(trx, id);
    return standing;
  });
}

function stillOpen({ openChanges }: Standing): TidegateError {
  const detail = `Changes that are open in the shadow: ${openChanges}. Decide about them, or give them up.`;
  return new TidegateError("command-refused", detail);
}

/** As everywhere: the lanes in order, and the counter last. */
async function lockShadow(trx: Transaction<Database>, { tenantId, upstreamId }: ShadowId): Promise<void> {
  await sql`
    select 1 from shadow where tenant_id = ${tenantId} and upstream_id = ${upstreamId} for update`.execute(
    trx,
  );
  await sql`
    select 1 from lane where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and partition is not null
    order by lane_id for update`.execute(trx);
}

/**
 * Under the lock of the counter, under which shadows are added: what is seen then of others holds until the commit. The row
 * goes under it too: who adds the same one waits for whoever deletes it.
 */
async function endLog(trx: Transaction<Database>, { tenantId, upstreamId }: ShadowId): Promise<void> {
  await sql`select 1 from feed_head where tenant_id = ${tenantId} for update`.execute(trx);
  await sql`delete from shadow where tenant_id = ${tenantId} and upstream_id = ${upstreamId}`.execute(trx);
  await sql`
    update feed_head set is_followed = exists (select 1 from shadow where tenant_id = ${tenantId})
    where tenant_id = ${tenantId}`.execute(trx);
}

/**
 * Deletes about `limit` rows of shadows that were forgotten. 0: nothing is left of any, and each may be added again. May
 * be stopped after any call, and called by several at once.
 */
export async function clearForgotten(
  trx: Transaction<Database>,
  tenantId: string,
  limit: number,
): Promise<number> {
  const { rows: forgotten } = await sql<{ upstream_id: string }>`
    select upstream_id from forgotten_shadow
    where tenant_id = ${tenantId} and cleared_at is null
    order by upstream_id, forgotten_at limit 1 for update`.execute(trx);
  const [first] = forgotten;
  if (!first) return 0;
  const id = { tenantId, upstreamId: first.upstream_id };
  const deleted = await deleteRowsOf(trx, id, limit);
  if (deleted > 0) return deleted;
  await sql`
    update forgotten_shadow set cleared_at = clock_timestamp()
    where tenant_id = ${tenantId} and upstream_id = ${first.upstream_id} and cleared_at is null`.execute(trx);
  return await clearForgotten(trx, tenantId, limit);
}

async function deleteRowsOf(trx: Transaction<Database>, id: ShadowId, limit: number): Promise<number> {
  let deleted = 0;
  for (const statement of deletionsOf(id, limit)) {
    if (deleted >= limit) break;
    const { numAffectedRows = 0n } = await statement.execute(trx);
    deleted += Number(numAffectedRows);
  }
  return deleted;
}

/** By the columns of each table's own key. */
const tables = {
  shadow_seed: ["partition", "position"],
  shadow_listed: ["entity", "own_id"],
  shadow_listing: ["entity"],
  shadow_record: ["entity", "server_id"],
};

/**
 * Of each table `limit` rows, or some more: all that the parts of these keys can make up. By arrays: a planner that believes
 * the tables to be small would join, and look for every row of the shadow among those.
 */
export function deletionsOf(id: ShadowId, limit: number): RawBuilder<unknown>[] {
  const { tenantId, upstreamId } = id;
  const ofTables = Object.entries(tables).map(([name, columns]) => {
    const table = sql.table(name);
    const key = sql.join(columns.map((column) => sql.ref(column)));
    const isAmong = columns.map(
      (column) => sql`${sql.ref(column)} = any(array(select ${sql.ref(column)} from batch))`,
    );
    return sql`
      with batch as materialized (
        select ${key} from ${table} where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
        order by ${key} limit ${limit}
      )
      delete from ${table} where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
        and ${sql.join(isAmong, sql` and `)}`;
  });
  return [deleteDeliveries(id, limit), ...ofTables];
}

/** By the lanes: a primary that has got the name since has deliveries of its own. */
function deleteDeliveries(id: ShadowId, limit: number): RawBuilder<unknown> {
  const { tenantId, upstreamId } = id;
  return sql`
    with batch as materialized (
      select mutation_id from delivery
      where tenant_id = ${tenantId} and client_id = any(${lanesOf(id)}::uuid[])
      limit ${limit}
    )
    delete from delivery where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
      and mutation_id = any(array(select mutation_id from batch))`;
}

function lanesOf({ tenantId, upstreamId }: ShadowId): string[] {
  return Array.from({ length: partitions }, (_, partition) => laneIdOf(tenantId, upstreamId, partition));
}
