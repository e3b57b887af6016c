import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import { bigintArray, byteaArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { AttemptDisposition, Database } from "../platform/schema.ts";

/** One try at a mutation: what was done about it at the upstream, and what came of it. */
export interface AttemptWrite {
  upstreamId: string;
  mutationId: string;
  epoch: number;
  /** On the database's clock. */
  begunAt: Date;
  /** Of its calls together; 0 when none was made. */
  durationMs: number;
  disposition: AttemptDisposition;
  /** Whether a call left that could have changed something. */
  sent: boolean;
  status: number | null;
  /** What the upstream said, redacted. */
  excerpt: string | null;
  requestId: string;
  /** The record that the upstream named, when no outcome has it. */
  recordId?: string | undefined;
}

/** Keeps attempts, in one statement. What is kept already, by a commit whose answer was lost, is not kept twice. */
export async function writeAttempts(
  trx: Transaction<Database>,
  tenantId: string,
  attempts: AttemptWrite[],
  { codec, owner }: { codec: PayloadCodec; owner: string },
): Promise<void> {
  if (attempts.length === 0) return;
  const excerpts = attempts.map(({ excerpt }) => (excerpt === null ? null : codec.encode(excerpt)));
  await sql`
    insert into attempt (tenant_id, mutation_id, upstream_id, begun_at, epoch, duration_ms, disposition, sent,
      http_status, record_id, worker, request_id, key_id, excerpt)
    select ${tenantId}, a.mutation_id, a.upstream_id, to_timestamp(a.begun_ms / 1000.0), a.epoch, a.duration_ms,
      a.disposition, a.sent = 1, nullif(a.http_status, 0), a.record_id, ${owner}, a.request_id,
      case when a.excerpt is not null then ${codec.keyId} end, a.excerpt
    from unnest(
      ${uuidArray(attempts.map(({ mutationId }) => mutationId))}::uuid[],
      ${textArray(attempts.map(({ upstreamId }) => upstreamId))}::text[],
      ${bigintArray(attempts.map(({ begunAt }) => begunAt.getTime()))}::bigint[],
      ${bigintArray(attempts.map(({ epoch }) => epoch))}::bigint[],
      ${bigintArray(attempts.map(({ durationMs }) => durationMs))}::bigint[],
      ${textArray(attempts.map(({ disposition }) => disposition))}::text[],
      ${bigintArray(attempts.map(({ sent }) => (sent ? 1 : 0)))}::bigint[],
      ${bigintArray(attempts.map(({ status }) => status ?? 0))}::bigint[],
      ${textArray(attempts.map(({ recordId }) => recordId ?? null))}::text[],
      ${textArray(attempts.map(({ requestId }) => requestId))}::text[],
      ${byteaArray(excerpts)}::bytea[]
    ) as a (mutation_id, upstream_id, begun_ms, epoch, duration_ms, disposition, sent, http_status, record_id,
      request_id, excerpt)
    on conflict do nothing`.execute(trx);
}
