import { sql, type Kysely, type RawBuilder } from "kysely";

import { partitions, partitionSql } from "../../change-feed/applied-log.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { inTenant } from "../../platform/db.ts";
import type { Database } from "../../platform/schema.ts";
import { laneIdOf } from "./log.ts";
import { seedOrder } from "./seed-order.ts";

export interface ShadowId {
  tenantId: string;
  upstreamId: string;
}

/** Whether a shadow has got its lanes just now, or had them. */
export type Added = "now" | "before";

/** What is known of a shadow and its primary, and for how long by now. */
export interface KnownConfigs {
  shadow: UpstreamConfig;
  primary: UpstreamConfig;
  ageMs: () => number;
}

/**
 * Adds a shadow, unless it was added before: from a position on everything is logged for it, the records that exist then
 * are listed to be seeded, and it gets its lanes. A process that dies in the middle has another do the rest.
 *
 * @param beforeLanes is done last but one, however long it takes: nothing goes to the shadow before. With false, the rest
 * is left to others.
 * @param configs those from before the shadow was forgotten do not bring it back, nor take part when others do: every step
 * asks again.
 * @returns undefined when it is not added yet, or was forgotten.
 */
export async function addShadow(
  db: Kysely<Database>,
  id: ShadowId,
  configs: KnownConfigs,
  beforeLanes: () => Promise<boolean>,
): Promise<Added | undefined> {
  const { isForgotten, isBegun, isListed, hasLanes } = await readProgress(db, id, configs);
  if (isForgotten) return undefined;
  if (hasLanes) return "before";
  if (!isBegun) await beginLog(db, id, configs);
  if (!isListed) await listSeeds(db, id, configs);
  if (!(await beforeLanes())) return undefined;
  return (await makeLanes(db, id, configs)) ? "now" : undefined;
}

/** It was forgotten since the configuration is known, or there is still something left of it. */
function wasForgotten({ tenantId, upstreamId }: ShadowId, { ageMs }: KnownConfigs): RawBuilder<boolean> {
  return sql`exists (
    select 1 from forgotten_shadow
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and (cleared_at is null
      or forgotten_at > clock_timestamp() - ${ageMs()}::float8 * interval '1 millisecond')
  )`;
}

async function readProgress(
  db: Kysely<Database>,
  id: ShadowId,
  configs: KnownConfigs,
): Promise<{ isForgotten: boolean; isBegun: boolean; isListed: boolean; hasLanes: boolean }> {
  const { tenantId, upstreamId } = id;
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ is_forgotten: boolean; is_begun: boolean; is_listed: boolean; has_lanes: boolean }>`
      select ${wasForgotten(id, configs)} as is_forgotten, s.upstream_id is not null as is_begun, s.listed_at is not null as is_listed, exists (
        select 1 from lane where tenant_id = ${tenantId} and lane_id = ${laneIdOf(tenantId, upstreamId, 0)}
      ) as has_lanes
      from (select) one
      left join shadow s on s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId}`.execute(trx),
  );
  const [row] = rows;
  if (!row) throw new Error("an outer join without its row");
  return {
    isForgotten: row.is_forgotten,
    isBegun: row.is_begun,
    isListed: row.is_listed,
    hasLanes: row.has_lanes,
  };
}

/**
 * Under the lock of the tenant's counter: every later commit logs what it writes, no earlier one is still open. Shadows are
 * forgotten under it as well, so one that has been by then is seen.
 */
async function beginLog(db: Kysely<Database>, id: ShadowId, configs: KnownConfigs): Promise<void> {
  const { tenantId, upstreamId } = id;
  await inTenant(db, tenantId, async (trx) => {
    await sql`
      insert into feed_head (tenant_id, position) values (${tenantId}, 0)
      on conflict (tenant_id) do nothing`.execute(trx);
    await sql`select 1 from feed_head where tenant_id = ${tenantId} for update`.execute(trx);
    await sql`
      with begun as (
        insert into shadow (tenant_id, upstream_id, follows_from)
        select ${tenantId}, ${upstreamId}, position from feed_head
        where tenant_id = ${tenantId} and not ${wasForgotten(id, configs)}
        on conflict (tenant_id, upstream_id) do nothing
        returning 1
      )
      update feed_head set is_followed = true
      where tenant_id = ${tenantId} and exists (select 1 from begun)`.execute(trx);
  });
}

/**
 * Lists every record that exists, also those written since the log began: what of the log a seed has is known by its
 * position. Those of an entity stand behind those that it refers to; where that goes in a circle, a second entry behind
 * all sets what the first had to leave out.
 */
async function listSeeds(db: Kysely<Database>, id: ShadowId, configs: KnownConfigs): Promise<void> {
  const { tenantId, upstreamId } = id;
  const order = seedOrder(configs.shadow, configs.primary);
  await inTenant(db, tenantId, async (trx) => {
    const { rows } = await sql`
      select 1 from shadow
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and listed_at is null
        and not ${wasForgotten(id, configs)}
      for update`.execute(trx);
    if (rows.length === 0) return;
    await sql`
      insert into shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id, is_completion)
      select ${tenantId}, ${upstreamId}, ${partitionSql},
        row_number() over (order by is_completion, rank, feed_position) - 1 - count(*) over (), entity, server_id,
        is_completion
      from (
        select r.entity, r.server_id, r.feed_position, o.rank, pass.is_completion
        from unnest(${order.map(({ entity }) => entity)}::text[], ${order.map(({ rank }) => rank)}::integer[],
          ${order.map(({ inCircle }) => inCircle)}::boolean[]) as o (entity, rank, in_circle)
        join record r on r.tenant_id = ${tenantId} and r.entity = o.entity and not r.deleted
        join (values (false), (true)) as pass (is_completion) on not pass.is_completion or o.in_circle
      ) listed`.execute(trx);
    await sql`
      update shadow set listed_at = now()
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId}`.execute(trx);
  });
}

/** From here on what is listed and logged is carried to the shadow. False when others made the lanes, or it was forgotten. */
async function makeLanes(db: Kysely<Database>, id: ShadowId, configs: KnownConfigs): Promise<boolean> {
  const { tenantId, upstreamId } = id;
  const lanes = Array.from({ length: partitions }, (_, partition) =>
    laneIdOf(tenantId, upstreamId, partition),
  );
  const { numAffectedRows = 0n } = await inTenant(db, tenantId, (trx) =>
    sql`
      insert into lane (tenant_id, lane_id, upstream_id, partition, epoch, position, follows_from)
      select ${tenantId}, l.lane_id, ${upstreamId}, l.place - 1, ${firstEpoch(tenantId, upstreamId)},
        coalesce((select min(position) - 1 from shadow_seed
          where tenant_id = ${tenantId} and upstream_id = ${upstreamId}), 0), s.follows_from
      from shadow s cross join unnest(${lanes}::text[]) with ordinality as l (lane_id, place)
      where s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId} and not ${wasForgotten(id, configs)}
      for share of s
      on conflict (tenant_id, lane_id) do nothing`.execute(trx),
  );
  return numAffectedRows > 0n;
}

/** Whoever had a lane in hand when the shadow was forgotten has none of the epochs that are given out after it has come back. */
function firstEpoch(tenantId: string, upstreamId: string): RawBuilder<unknown> {
  return sql`coalesce((
    select extract(epoch from max(forgotten_at))::bigint << 20 from forgotten_shadow
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId}
  ), 0)`;
}
