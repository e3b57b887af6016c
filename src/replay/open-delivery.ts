import { sql, type Transaction } from "kysely";

import type { Database, DeliveryState } from "../platform/schema.ts";

/** Where a mutation stands that did not go straight through, as a claim finds it. */
export interface OpenDelivery {
  mutationId: string;
  seq: number;
  state: DeliveryState;
  recordKey: string;
  refersTo: string[];
  blockedBy: string | null;
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
  possibly_sent: boolean;
  first_sent_at: Date | null;
  last_sent_at: Date | null;
  attempts: number;
}

/** The clients' open deliveries at all upstreams, in the order of each client's log. */
export async function readDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  clientIds: string[],
): Promise<DeliveryRow[]> {
  const { rows } = await sql<DeliveryRow>`
    select upstream_id, mutation_id, client_id, seq, state, record_key, refers_to, blocked_by, possibly_sent, first_sent_at,
      last_sent_at, attempts
    from delivery where tenant_id = ${tenantId} and client_id = any(${clientIds}::uuid[])
    order by client_id, seq`.execute(trx);
  return rows;
}

export function toOpenDelivery(row: DeliveryRow): OpenDelivery {
  return {
    mutationId: row.mutation_id,
    seq: Number(row.seq),
    state: row.state,
    recordKey: row.record_key,
    refersTo: row.refers_to,
    blockedBy: row.blocked_by,
    possiblySent: row.possibly_sent,
    isAssumed: false,
    wasAllowed: row.possibly_sent,
    firstSentAt: row.first_sent_at,
    lastSentAt: row.last_sent_at,
    attempts: row.attempts,
  };
}
