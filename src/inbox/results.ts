import { sql, type Transaction } from "kysely";

import type { Database, FinalStatus, StoredProblem } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";

/** What is recorded of a mutation, with where it stands in the primary's lane while it is not settled. */
export interface KnownMutation {
  id: string;
  seq: number;
  clientId: string;
  userId: string;
  entity: string;
  fingerprint: string;
  status: FinalStatus | "pending" | "parked";
  /** What it waits for, of the same client's: others' mutations are none of its business. */
  blockedBy: string | null;
  /** Whether it is kept back behind a parked mutation. */
  held: boolean;
  recordId: string | null;
  tempId: string | null;
  version: string | null;
  problem: StoredProblem | null;
}

/** The recorded mutations among `ids`, by id, in ascending seq. Whose they are is for the caller to look at. */
export async function readKnown(
  trx: Transaction<Database>,
  tenantId: string,
  ids: string[],
): Promise<Map<string, KnownMutation>> {
  if (ids.length === 0) return new Map();
  const { rows } = await sql<KnownRow>`${selectKnown} where k.tenant_id = ${tenantId}
    and k.mutation_id = any(${ids}::uuid[]) order by k.seq`.execute(trx);
  return new Map(rows.map((row) => [row.mutation_id, toKnown(row)]));
}

/** A client's mutations after `afterSeq`, in order, as its log names them. */
export async function readKnownAfter(
  trx: Transaction<Database>,
  { tenantId, clientId }: { tenantId: string; clientId: string },
  { afterSeq, limit }: { afterSeq: number; limit: number },
): Promise<KnownMutation[]> {
  // The first block may hold earlier ones as well, so it does not count.
  const { rows } = await sql<KnownRow>`${selectKnown} where k.tenant_id = ${tenantId} and k.seq > ${afterSeq}
    and k.mutation_id = any(array(
      select unnest(ids) from (
        select ids, sum(cardinality(ids)) over (order by last_seq) - cardinality(ids)
          - first_value(cardinality(ids)) over (order by last_seq) as before
        from (
          select ids, last_seq from inbox_block
          where tenant_id = ${tenantId} and client_id = ${clientId} and last_seq > ${afterSeq}
          order by last_seq limit ${limit} + 1
        ) near
      ) counted where before < ${limit}
    ))
    order by k.seq limit ${limit}`.execute(trx);
  return rows.map(toKnown);
}

/** Whether nothing more can happen by itself to a mutation: it has its outcome, is parked, or held behind a parked one. */
export function isSettled({ status, held }: KnownMutation): boolean {
  return status !== "pending" || held;
}

interface KnownRow {
  mutation_id: string;
  seq: string;
  client_id: string;
  user_id: string;
  entity: string;
  fingerprint: string;
  status: FinalStatus | null;
  temp_id: string | null;
  record_id: string | null;
  version: string | null;
  problem: StoredProblem | null;
  state: string | null;
  blocked_by: string | null;
  delivery_problem: StoredProblem | null;
}

// Row by row: as joins, the planner may begin with every client. Only a primary's deliveries have a client's seq, so they
// are found without the lane: its text ID can't be compared with the client's UUID by index under row-level security.
const selectKnown = sql`
  select k.mutation_id, k.seq, k.client_id, k.entity, encode(k.fingerprint, 'hex') as fingerprint, k.status, k.temp_id, k.record_id, k.version,
    k.problem, d.state, d.blocked_by, d.problem as delivery_problem,
    (select user_id from client c where c.tenant_id = k.tenant_id and c.client_id = k.client_id) as user_id
  from mutation_key k
  left join lateral (
    select state, problem, (
      select b.mutation_id from mutation_key b
      where b.tenant_id = k.tenant_id and b.mutation_id = delivery.blocked_by and b.client_id = k.client_id
    ) as blocked_by
    from delivery
    where k.status is null and tenant_id = k.tenant_id and client_id = k.client_id and seq = k.seq
      and mutation_id = k.mutation_id
    limit 1
  ) d on true`;

function toKnown(row: KnownRow): KnownMutation {
  const parked = row.status === null && row.state === "parked";
  return {
    id: row.mutation_id,
    seq: Number(row.seq),
    clientId: row.client_id,
    userId: row.user_id,
    entity: row.entity,
    fingerprint: row.fingerprint,
    status: row.status ?? (parked ? "parked" : "pending"),
    blockedBy: row.status === null && !parked ? row.blocked_by : null,
    held: row.status === null && row.state === "held",
    recordId: row.record_id,
    tempId: row.temp_id === null ? null : toTempId(row.temp_id),
    version: row.version,
    problem: row.problem ?? (parked ? row.delivery_problem : null),
  };
}
