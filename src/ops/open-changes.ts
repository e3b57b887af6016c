import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database, DeliveryState, StoredProblem } from "../platform/schema.ts";
import { firstPage, toPage, type PageEnd } from "./page-end.ts";

/** A change that a shadow has not taken yet, without its payload. */
export interface OpenChange {
  mutation_id: string;
  lane_id: string;
  position: string;
  /** A client's or another's change in the primary; or the record as the shadow is seeded with it. */
  kind: "change" | "seed";
  /** Of the mutation, if a client made it. */
  client_id: string | null;
  entity: string | null;
  server_id: string | null;
  temp_id: string | null;
  /** What the shadow calls the record, if it has it. */
  own_id: string | null;
  op: string | null;
  state: DeliveryState;
  blocked_by: string | null;
  problem: StoredProblem | null;
  possibly_sent: boolean;
  first_sent_at: Date | null;
  last_sent_at: Date | null;
  updated_at: Date;
  attempts: number;
  /** How many are held right behind it. */
  held: number;
}

export interface OpenChangesAsked {
  upstreamId: string;
  /** Those that are held right behind this one; without it, those that are parked. */
  heldBehind: string | undefined;
  after: PageEnd | undefined;
  limit: number;
}

/** What is parked in a shadow, or held there behind one change; what waits for longest first. */
export async function readOpenChanges(
  trx: Transaction<Database>,
  tenantId: string,
  { upstreamId, heldBehind, after = firstPage, limit }: OpenChangesAsked,
): Promise<{ changes: OpenChange[]; next: PageEnd | undefined }> {
  const which =
    heldBehind === undefined
      ? sql`state = 'parked'`
      : sql`state = 'held' and blocked_by = ${heldBehind}::uuid`;
  const found = sql`
    select * from delivery
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and ${which}
      and (updated_at, mutation_id) > (${after.since}::timestamptz, ${after.id}::uuid)
    order by updated_at, mutation_id limit ${limit} + 1`;
  const { page, next } = toPage(await readFacts(trx, tenantId, upstreamId, found), limit);
  return { changes: page, next };
}

/** Undefined when nothing of it is open. */
export async function readOpenChange(
  trx: Transaction<Database>,
  tenantId: string,
  { upstreamId, mutationId }: { upstreamId: string; mutationId: string },
): Promise<OpenChange | undefined> {
  const found = sql`
    select * from delivery
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and mutation_id = ${mutationId}`;
  return (await readFacts(trx, tenantId, upstreamId, found))[0];
}

/** What is known of these deliveries: the log, or the list of seeds, says which record each is about. */
async function readFacts(
  trx: Transaction<Database>,
  tenantId: string,
  upstreamId: string,
  found: RawBuilder<unknown>,
): Promise<(OpenChange & { since: string })[]> {
  const { rows } = await sql<OpenChange & { since: string }>`
    with found as materialized (select f.*, f.client_id::text as lane_id from (${found}) f)
    select d.mutation_id, d.lane_id, d.seq as position, case when d.seq < 0 then 'seed' else 'change' end as kind,
      about.entity, about.server_id, coalesce(about.temp_id, r.temp_id) as temp_id, case when not own.deleted then own.own_id end as own_id,
      d.op, d.state, d.blocked_by, d.problem, d.possibly_sent, d.first_sent_at, d.last_sent_at, d.updated_at,
      d.updated_at::text as since,
      (select k.client_id from mutation_key k
        where k.tenant_id = ${tenantId} and k.mutation_id = d.mutation_id) as client_id,
      (select count(*)::integer from attempt a
        where a.tenant_id = ${tenantId} and a.mutation_id = d.mutation_id and a.upstream_id = ${upstreamId}) as attempts,
      (select count(*)::integer from delivery h
        where h.tenant_id = ${tenantId} and h.blocked_by = d.mutation_id and h.state = 'held'
          and h.upstream_id = ${upstreamId}) as held
    from found d
    left join lane l on l.tenant_id = ${tenantId} and l.lane_id = d.lane_id
    left join lateral (
      select entity, server_id, temp_id from applied_change
      where tenant_id = ${tenantId} and partition = l.partition and position = d.seq
      union all
      select entity, server_id, null from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and partition = l.partition and position = d.seq
      limit 1
    ) about on true
    left join record r on r.tenant_id = ${tenantId} and r.entity = about.entity and r.server_id = about.server_id
    left join shadow_record own on own.tenant_id = ${tenantId} and own.upstream_id = ${upstreamId}
      and own.entity = about.entity and own.server_id = about.server_id
    order by d.updated_at, d.mutation_id`.execute(trx);
  return rows;
}
