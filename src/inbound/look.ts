import { sql, type Kysely, type Transaction } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { recordKey, type RecordKey } from "../records/record.ts";

/** A record that is to be read from the upstream. */
export interface Look extends RecordKey {
  asked: number;
  failures: number;
  /** Until when an unknown record may be that of a create under way; that time is over by now. */
  waited: boolean;
}

/** A look to come. */
export interface LookLater extends RecordKey {
  inMs: number;
  /** For an unknown record: at most so long from the first time that it was seen. */
  waitMs?: number;
}

/** Asks for looks at records, and makes the upstream due. One that is asked for again while it waits stays one. */
export async function askForLooks(
  db: Kysely<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  keys: readonly RecordKey[],
): Promise<void> {
  await inTenant(db, tenantId, async (trx) => {
    const looks = keys.map(({ entity, serverId }) => ({ entity, serverId, inMs: 0 }));
    await Promise.all([
      // First: the owner gives the upstream back under the same lock, and must not miss what is asked for meanwhile.
      sql`
        insert into inbound (tenant_id, upstream_id) values (${tenantId}, ${upstreamId})
        on conflict (tenant_id, upstream_id) do update set due_at = least(inbound.due_at, now())`.execute(
        trx,
      ),
      writeLooks(trx, { tenantId, upstreamId }, looks),
    ]);
  });
}

/** Sorted, so that two who ask for the same records don't wait for each other in a circle. */
export async function writeLooks(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  looks: readonly LookLater[],
): Promise<void> {
  if (looks.length === 0) return;
  const once = [...new Map(looks.map((look) => [recordKey(look), look])).entries()]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([, look]) => look);
  await sql`
    insert into inbound_look (tenant_id, upstream_id, entity, server_id, due_at, wait_until)
    select ${tenantId}, ${upstreamId}, entity, server_id, now() + in_ms * interval '1 millisecond',
      now() + wait_ms * interval '1 millisecond'
    from unnest(${once.map(({ entity }) => entity)}::text[], ${once.map(({ serverId }) => serverId)}::text[],
      ${once.map(({ inMs }) => Math.ceil(inMs))}::integer[], ${once.map(({ waitMs }) => (waitMs === undefined ? null : Math.ceil(waitMs)))}::integer[])
      as l (entity, server_id, in_ms, wait_ms)
    on conflict (tenant_id, upstream_id, entity, server_id) do update set asked = inbound_look.asked + 1,
      due_at = case when inbound_look.due_at <= now() then excluded.due_at
        else least(inbound_look.due_at, excluded.due_at) end,
      wait_until = coalesce(inbound_look.wait_until, excluded.wait_until)`.execute(trx);
}

/** The looks that are due, those first that are due for longest. */
export async function readDueLooks(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  limit: number,
): Promise<Look[]> {
  const { rows } = await sql<{
    entity: string;
    server_id: string;
    asked: string;
    failures: number;
    waited: boolean;
  }>`
    select entity, server_id, asked, failures, coalesce(wait_until <= now(), false) as waited from inbound_look
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and due_at <= now()
    order by due_at limit ${limit}`.execute(trx);
  return rows.map((row) => ({
    entity: row.entity,
    serverId: row.server_id,
    asked: Number(row.asked),
    failures: row.failures,
    waited: row.waited,
  }));
}

/** Forgets looks that nobody has asked for again since. */
export async function settleLooks(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  looks: readonly Look[],
): Promise<void> {
  if (looks.length === 0) return;
  await sql`
    delete from inbound_look
    using unnest(${looks.map(({ entity }) => entity)}::text[], ${looks.map(({ serverId }) => serverId)}::text[],
      ${looks.map(({ asked }) => asked)}::bigint[]) as l (entity, server_id, asked)
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and inbound_look.entity = l.entity
      and inbound_look.server_id = l.server_id and inbound_look.asked = l.asked`.execute(trx);
}

/** Looks that failed are due again later. */
export async function putOffLooks(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  looks: readonly { look: Look; inMs: number }[],
): Promise<void> {
  if (looks.length === 0) return;
  await sql`
    update inbound_look set failures = inbound_look.failures + 1, due_at = now() + l.in_ms * interval '1 millisecond'
    from unnest(${looks.map(({ look }) => look.entity)}::text[], ${looks.map(({ look }) => look.serverId)}::text[],
      ${looks.map(({ inMs }) => Math.ceil(inMs))}::bigint[]) as l (entity, server_id, in_ms)
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and inbound_look.entity = l.entity
      and inbound_look.server_id = l.server_id`.execute(trx);
}
