import { sql, type Transaction } from "kysely";

import type { Database, StoredProblem } from "../platform/schema.ts";
import { firstPage, toPage, type PageEnd } from "./page-end.ts";

/** A mutation that waits for a person, without its payload. */
export interface ParkedMutation {
  id: string;
  clientId: string;
  seq: number;
  entity: string;
  op: string | null;
  problem: StoredProblem | null;
  possiblySent: boolean;
  since: Date;
  attempts: number;
  /** How many are held right behind it. */
  held: number;
}

/** The mutations of a tenant that are parked at its primary, behind `after`; those that wait for longest first. */
export async function readParked(
  trx: Transaction<Database>,
  tenantId: string,
  { upstreamId, after, limit }: { upstreamId: string; after: PageEnd | undefined; limit: number },
): Promise<{ parked: ParkedMutation[]; next: PageEnd | undefined }> {
  const { since, id } = after ?? firstPage;
  const { rows } = await sql<ParkedRow>`
    select d.mutation_id, d.client_id, d.seq, d.op, d.problem, d.possibly_sent, d.updated_at,
      d.updated_at::text as since,
      (select entity from mutation_key k where k.tenant_id = ${tenantId} and k.mutation_id = d.mutation_id) as entity,
      (select count(*)::integer from attempt a
        where a.tenant_id = ${tenantId} and a.mutation_id = d.mutation_id and a.upstream_id = ${upstreamId}) as attempts,
      (select count(*)::integer from delivery h
        where h.tenant_id = ${tenantId} and h.blocked_by = d.mutation_id and h.state = 'held'
          and h.upstream_id = ${upstreamId}) as held
    from (
      select * from delivery
      where tenant_id = ${tenantId} and state = 'parked' and upstream_id = ${upstreamId}
        and (updated_at, mutation_id) > (${since}::timestamptz, ${id}::uuid)
      order by updated_at, mutation_id limit ${limit} + 1
    ) d order by d.updated_at, d.mutation_id`.execute(trx);
  const { page, next } = toPage(rows, limit);
  return { parked: page.map(toParked), next };
}

interface ParkedRow {
  mutation_id: string;
  client_id: string;
  seq: string;
  op: string | null;
  problem: StoredProblem | null;
  possibly_sent: boolean;
  updated_at: Date;
  since: string;
  entity: string;
  attempts: number;
  held: number;
}

function toParked(row: ParkedRow): ParkedMutation {
  return {
    id: row.mutation_id,
    clientId: row.client_id,
    seq: Number(row.seq),
    entity: row.entity,
    op: row.op,
    problem: row.problem,
    possiblySent: row.possibly_sent,
    since: row.updated_at,
    attempts: row.attempts,
    held: row.held,
  };
}
