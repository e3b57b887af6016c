import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database, DeliveryState } from "../platform/schema.ts";

/** Where a mutation stands that did not go straight through, as a claim finds it. */
export interface OpenDelivery {
  mutationId: string;
  seq: number;
  state: DeliveryState;
  recordKey: string;
  refersTo: string[];
  blockedBy: string | null;
  /** What it is held behind stands in another lane, and has not ended. */
  isBehindAnother: boolean;
  possiblySent: boolean;
  /** Nothing speaks for it but a recovery: calls that were made before it left no trace. */
  isAssumed: boolean;
  /** It was sent before, so the rules have allowed it, and what they say of its effect does not matter. */
  wasAllowed: boolean;
  firstSentAt: Date | null;
  lastSentAt: Date | null;
  attempts: number;
  /** An operator has taken the responsibility for what was sent before: it counts as if nothing had been. */
  isReset?: boolean;
}

export interface DeliveryRow {
  upstream_id: string;
  mutation_id: string;
  client_id: string;
  seq: string;
  state: DeliveryState;
  record_key: string;
  refers_to: string[];
  blocked_by: string | null;
  is_behind_another: boolean;
  possibly_sent: boolean;
  first_sent_at: Date | null;
  last_sent_at: Date | null;
  attempts: number;
}

/**
 * The clients' open deliveries at all upstreams, in the order of each client's log. In a primary nothing is held behind
 * another lane's.
 */
export async function readDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  clientIds: string[],
  role: "primary" | "shadow",
): Promise<DeliveryRow[]> {
  const { rows } = await sql<DeliveryRow>`
    select upstream_id, mutation_id, client_id, seq, state, record_key, refers_to, blocked_by, possibly_sent, first_sent_at,
      last_sent_at, attempts, ${role === "shadow" ? isBehindAnother(tenantId) : sql`false`} as is_behind_another
    from delivery d where tenant_id = ${tenantId} and client_id = any(${clientIds}::uuid[])
    order by client_id, seq`.execute(trx);
  return rows;
}

function isBehindAnother(tenantId: string): RawBuilder<unknown> {
  return sql`(d.state = 'held' and exists (
    select 1 from delivery b where b.tenant_id = ${tenantId} and b.upstream_id = d.upstream_id
      and b.mutation_id = d.blocked_by and b.client_id <> d.client_id
  ))`;
}

export function toOpenDelivery(row: DeliveryRow): OpenDelivery {
  return {
    mutationId: row.mutation_id,
    seq: Number(row.seq),
    state: row.state,
    recordKey: row.record_key,
    refersTo: row.refers_to,
    blockedBy: row.blocked_by,
    isBehindAnother: row.is_behind_another,
    possiblySent: row.possibly_sent,
    isAssumed: false,
    wasAllowed: row.possibly_sent,
    firstSentAt: row.first_sent_at,
    lastSentAt: row.last_sent_at,
    attempts: row.attempts,
  };
}
