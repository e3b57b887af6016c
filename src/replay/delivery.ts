import { sql, type Transaction } from "kysely";

import type { Operation } from "../inbox/mutation.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import { uuidArray } from "../platform/pg-arrays.ts";
import type { Database, DeliveryState, StoredProblem } from "../platform/schema.ts";

/** Where a mutation stands that did not go straight through. */
export interface DeliveryWrite {
  upstreamId: string;
  mutationId: string;
  clientId: string;
  seq: number;
  state: DeliveryState;
  recordKey: string;
  refersTo: string[];
  blockedBy: string | null;
  op?: Operation | undefined;
  /** Whether a call may have taken effect; once true it stays true, unless the row is reset. */
  possiblySent: boolean;
  /** What is recorded of earlier calls is forgotten first: an operator has taken the responsibility for them. */
  isReset?: boolean | undefined;
  /** When the first of these calls began at the earliest, and the last at the latest; null when this write adds none. */
  firstSentAt: Date | null;
  lastSentAt: Date | null;
  attempts: number;
  problem: StoredProblem | null;
  /** The upstream's last answer, for a person to decide with. */
  evidence: { status: number | null; excerpt: string | null } | null;
}

/** The row of a mutation that has ended at an upstream is removed. */
export interface SettledDelivery {
  settled: string;
  upstreamId: string;
}

/** Writes where mutations stand, and removes the rows of those that are settled. At most three statements. */
export async function writeDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  writes: (DeliveryWrite | SettledDelivery)[],
  codec: PayloadCodec,
): Promise<void> {
  const open = writes.flatMap((write) => ("settled" in write ? [] : [write]));
  const settled = writes.flatMap((write) => ("settled" in write ? [write] : []));
  const reset = open.filter(({ isReset }) => isReset);
  await Promise.all([
    reset.length > 0 && resetDeliveries(trx, tenantId, reset),
    settled.length > 0 && removeDeliveries(trx, tenantId, settled),
    open.length > 0 && upsertDeliveries(trx, tenantId, open, codec),
  ]);
}

async function resetDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  reset: DeliveryWrite[],
): Promise<void> {
  await sql`
    update delivery set possibly_sent = false, first_sent_at = null, last_sent_at = null
    from unnest(${reset.map(({ upstreamId }) => upstreamId)}::text[],
      ${reset.map(({ mutationId }) => mutationId)}::uuid[]) as r (upstream_id, mutation_id)
    where delivery.tenant_id = ${tenantId} and delivery.upstream_id = r.upstream_id
      and delivery.mutation_id = r.mutation_id`.execute(trx);
}

async function removeDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  settled: SettledDelivery[],
): Promise<void> {
  await sql`
    delete from delivery using unnest(${settled.map(({ upstreamId }) => upstreamId)}::text[],
      ${settled.map(({ settled: id }) => id)}::uuid[]) as s (upstream_id, mutation_id)
    where delivery.tenant_id = ${tenantId} and delivery.upstream_id = s.upstream_id
      and delivery.mutation_id = s.mutation_id`.execute(trx);
}

/** An intent that nothing came of leaves no time of a call behind. */
const maySent = sql`(delivery.possibly_sent or excluded.possibly_sent or excluded.state = 'sending')`;

async function upsertDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  writes: DeliveryWrite[],
  codec: PayloadCodec,
): Promise<void> {
  const rows = writes.map((write) => ({
    upstream_id: write.upstreamId,
    mutation_id: write.mutationId,
    client_id: write.clientId,
    seq: write.seq,
    op: write.op ?? null,
    state: write.state,
    record_key: write.recordKey,
    refers_to: write.refersTo,
    blocked_by: write.blockedBy,
    possibly_sent: write.possiblySent,
    first_sent_at: write.firstSentAt,
    last_sent_at: write.lastSentAt,
    attempts: write.attempts,
    problem: write.problem,
    evidence_status: write.evidence?.status ?? null,
    key_id: codec.keyId,
    evidence: write.evidence?.excerpt ? codec.encode(write.evidence.excerpt).toString("hex") : null,
  }));
  await sql`
    insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, op, state, record_key, refers_to, blocked_by,
      possibly_sent, first_sent_at, last_sent_at, attempts, problem, evidence_status, key_id, evidence)
    select ${tenantId}, upstream_id, mutation_id, client_id, seq, op, state, record_key,
      array(select jsonb_array_elements_text(refers_to)), blocked_by, possibly_sent,
      first_sent_at, last_sent_at, attempts, problem, evidence_status, key_id, decode(evidence, 'hex')
    from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as w (upstream_id text, mutation_id uuid, client_id uuid,
      seq bigint, op text, state text, record_key text, refers_to jsonb, blocked_by uuid, possibly_sent boolean,
      first_sent_at timestamptz, last_sent_at timestamptz, attempts integer, problem jsonb, evidence_status integer, key_id text, evidence text)
    on conflict (tenant_id, upstream_id, mutation_id) do update set state = excluded.state,
      op = coalesce(excluded.op, delivery.op), record_key = excluded.record_key, refers_to = excluded.refers_to,
      blocked_by = excluded.blocked_by, possibly_sent = delivery.possibly_sent or excluded.possibly_sent,
      first_sent_at = case when ${maySent} then least(delivery.first_sent_at, excluded.first_sent_at) end,
      last_sent_at = case when ${maySent} then greatest(delivery.last_sent_at, excluded.last_sent_at) end,
      attempts = excluded.attempts,
      problem = excluded.problem, evidence_status = coalesce(excluded.evidence_status, delivery.evidence_status),
      key_id = coalesce(excluded.key_id, delivery.key_id), evidence = coalesce(excluded.evidence, delivery.evidence),
      updated_at = now()`.execute(trx);
}

/** What others may have waited for has ended in the lane of `clientId`. */
export interface Ended {
  id: string;
  clientId: string;
}

/** The lanes whose head waits for one of these, and the other lanes that hold something behind one, by what it is. */
export async function readWaitingLanes(
  trx: Transaction<Database>,
  tenantId: string,
  ended: Ended[],
): Promise<Map<string, string[]>> {
  const waiting = new Map<string, string[]>();
  if (ended.length === 0) return waiting;
  const { rows } = await sql<{ client_id: string; blocked_by: string }>`
    select distinct d.client_id, d.blocked_by
    from unnest(${uuidArray(ended.map(({ id }) => id))}::uuid[],
      ${uuidArray(ended.map(({ clientId }) => clientId))}::uuid[])
      as ended (id, client_id)
    join delivery d on d.tenant_id = ${tenantId} and d.blocked_by = ended.id
      and (d.state = 'waiting' or (d.state = 'held' and d.client_id <> ended.client_id))`.execute(trx);
  for (const row of rows) {
    waiting.set(row.blocked_by, [...(waiting.get(row.blocked_by) ?? []), row.client_id]);
  }
  return waiting;
}
