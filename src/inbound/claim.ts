import { sql, type Kysely, type Transaction } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { servedHere } from "../replay/served-here.ts";

/** The right to ask an upstream for what others changed, for as long as the lease lasts, under one epoch. */
export interface InboundClaim {
  tenantId: string;
  upstreamId: string;
  epoch: number;
}

/** Another process has taken the upstream over: nothing of what was going on may be written. */
export class InboundLost extends Error {}

/** What there is to ask next is not due before that. */
export interface NotDue {
  dueInMs: number;
}

/** Knows an upstream and its entities from now on. */
export async function registerInbound(
  db: Kysely<Database>,
  { tenantId, upstreamId, entities }: { tenantId: string; upstreamId: string; entities: readonly string[] },
): Promise<void> {
  await inTenant(db, tenantId, async (trx) => {
    await Promise.all([
      sql`insert into inbound (tenant_id, upstream_id) values (${tenantId}, ${upstreamId})
        on conflict do nothing`.execute(trx),
      sql`insert into inbound_entity (tenant_id, upstream_id, entity)
        select ${tenantId}, ${upstreamId}, name from unnest(${entities}::text[]) as e (name)
        on conflict do nothing`.execute(trx),
    ]);
  });
}

/** Claims an upstream whose time has come; undefined when another process has it in hand. Only the database's clock decides. */
export async function claimInbound(
  db: Kysely<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  { owner, leaseMs }: { owner: string; leaseMs: number },
): Promise<InboundClaim | NotDue | undefined> {
  return await inTenant(db, tenantId, async (trx) => {
    const { rows } = await sql<{ epoch: string }>`
      update inbound set epoch = epoch + 1, owner = ${owner}, lease_until = ${inMs(leaseMs)}
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and due_at <= clock_timestamp()
        and (lease_until is null or lease_until <= clock_timestamp()) and ${servedHere}
      returning epoch`.execute(trx);
    const [row] = rows;
    if (row) return { tenantId, upstreamId, epoch: Number(row.epoch) };
    const waiting = await sql<{ due_in_ms: number }>`
      select extract(epoch from due_at - clock_timestamp())::float8 * 1000 as due_in_ms from inbound
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and due_at > clock_timestamp()
        and lease_until is null`.execute(trx);
    const dueInMs = waiting.rows[0]?.due_in_ms;
    return dueInMs === undefined ? undefined : { dueInMs: Math.ceil(dueInMs) };
  });
}

/**
 * Prolongs the lease, and holds it until the transaction ends: what is written in it is written by the owner.
 * @throws {InboundLost} when another process has taken over.
 */
export async function holdClaim(
  trx: Transaction<Database>,
  { tenantId, upstreamId, epoch }: InboundClaim,
  leaseMs: number,
): Promise<void> {
  const { rows } = await sql`
    update inbound set lease_until = ${inMs(leaseMs)}
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and epoch = ${epoch} and lease_until is not null
    returning 1`.execute(trx);
  if (rows.length === 0) throw new InboundLost("the upstream was taken over");
}

/** Gives the upstream back until the next look, poll or sweep is due, but at least for `pauseMs`, and tells when that is. */
export async function releaseInbound(
  db: Kysely<Database>,
  { tenantId, upstreamId, epoch }: InboundClaim,
  { entities, pauseMs }: { entities: readonly string[]; pauseMs: number },
): Promise<NotDue | undefined> {
  return await inTenant(db, tenantId, async (trx) => {
    // A look that is asked for at this moment is seen by the statement behind the lock.
    await sql`select 1 from inbound where tenant_id = ${tenantId} and upstream_id = ${upstreamId} for update`.execute(
      trx,
    );
    const { rows } = await sql<{ due_in_ms: number }>`
      update inbound set lease_until = null, due_at = greatest(${inMs(pauseMs)}, least(
        (select min(due_at) from inbound_look where tenant_id = ${tenantId} and upstream_id = ${upstreamId}),
        (select min(least(poll_due_at, sweep_due_at)) from inbound_entity
          where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = any(${entities}::text[])),
        clock_timestamp() + interval '1 hour'
      ))
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and epoch = ${epoch}
      returning extract(epoch from due_at - clock_timestamp())::float8 * 1000 as due_in_ms`.execute(trx);
    const dueInMs = rows[0]?.due_in_ms;
    return dueInMs === undefined ? undefined : { dueInMs: Math.max(0, Math.ceil(dueInMs)) };
  });
}

/** Those upstreams of a tenant that have been due for a while and that nobody asks. */
export async function readOverdueInbound(
  db: Kysely<Database>,
  tenantId: string,
  upstreamIds: readonly string[],
): Promise<{ laneId: string; overdueMs: number }[]> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ upstream_id: string; overdue_ms: number }>`
      select upstream_id, extract(epoch from now() - due_at)::float8 * 1000 as overdue_ms from inbound
      where tenant_id = ${tenantId} and upstream_id = any(${upstreamIds}::text[])
        and due_at <= now() - interval '2 seconds'
        and (lease_until is null or lease_until <= now())`.execute(trx),
  );
  return rows.map((row) => ({ laneId: row.upstream_id, overdueMs: row.overdue_ms }));
}

const inMs = (ms: number) => sql`clock_timestamp() + ${Math.ceil(ms)}::bigint * interval '1 millisecond'`;
