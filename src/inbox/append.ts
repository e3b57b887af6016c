import { sql, type Kysely, type Transaction } from "kysely";

import { lockClient, recordLoss, type ClientKey } from "../clients/client.ts";
import { inTenantWithLast } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, StoredProblem } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";
import { encodeBlock } from "./block.ts";
import type { RejectedMutation } from "./mutation.ts";
import { readKnown, type KnownMutation } from "./results.ts";

/** A mutation as it was judged by itself: fit for the log, or rejected. */
export interface JudgedMutation {
  seq: number;
  id: string;
  entity: string;
  /** Newest secret first; a repeat may have been written under an older one. */
  fingerprints: string[];
  verdict: { text: string; tempId: string | undefined } | { rejected: StoredProblem };
}

export interface Upload extends ClientKey {
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
  previousSeq: number;
  lostThrough: number | undefined;
  mutations: JudgedMutation[];
}

export interface Appended {
  ackedSeq: number;
  /** Whether the log grew, so that the lane has something to do. */
  grew: boolean;
  /** The positions after `afterSeq` that the client has just given up. */
  lost: { afterSeq: number; throughSeq: number } | undefined;
  /** Those of the batch (`keyOf`) whose id was used before for other content. */
  reused: Set<string>;
  /** What is recorded of the batch's mutations now, by id. */
  known: Map<string, KnownMutation>;
}

const attemptsMax = 5;

/**
 * Appends a batch to its client's log, in one transaction under the client's lock and in a fixed number of statements.
 * When it returns, every mutation of the batch is durable: appended now, or known before.
 *
 * @throws {TidegateError} `client-owned`, `sequence-gap`, `sequence-reused`; nothing of the batch was taken then.
 */
export async function appendBatch(
  db: Kysely<Database>,
  upload: Upload,
  { codec, upstreamId }: { codec: PayloadCodec; upstreamId: string },
): Promise<Appended> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTenantWithLast(db, upload.tenantId, (trx) => append(trx, upload, codec, upstreamId));
    } catch (error) {
      // Another client brought the same mutation at the same moment; by now its key is readable.
      if (!isCollision(error) || attempt === attemptsMax) throw error;
    }
  }
}

async function append(
  trx: Transaction<Database>,
  upload: Upload,
  codec: PayloadCodec,
  upstreamId: string,
): Promise<{ result: Appended; last: Promise<unknown> | undefined }> {
  const ids = upload.mutations.map(({ id }) => id);
  // The look-up runs behind the lock without this process waiting in between.
  const [before, known] = await Promise.all([
    lockClient(trx, upload, upload.userId),
    readKnown(trx, upload.tenantId, ids),
  ]);
  const lastSeq = await closeGap(trx, upload, before);
  const { fresh, reused } = sortOut(upload, known);
  const firstReused = fresh.find(({ seq }) => seq <= lastSeq);
  if (firstReused) throw sequenceReused(firstReused, lastSeq);
  const ackedSeq = Math.max(lastSeq, upload.mutations.at(-1)?.seq ?? 0);
  let last: Promise<unknown> | undefined;
  if (fresh.length > 0) last = writeBlock(trx, upload, fresh, { codec, upstreamId, ackedSeq });
  else if (ackedSeq > lastSeq) last = moveLastSeq(trx, upload, ackedSeq);
  for (const mutation of fresh) known.set(mutation.id, toFreshlyKnown(mutation, upload));
  const lost = lastSeq > before ? { afterSeq: before, throughSeq: lastSeq } : undefined;
  return { result: { ackedSeq, grew: fresh.length > 0, lost, reused, known }, last };
}

/** The client's last seq, after what it reports as lost; that is recorded. */
async function closeGap(trx: Transaction<Database>, upload: Upload, lastSeq: number): Promise<number> {
  const { previousSeq, lostThrough } = upload;
  if (lostThrough !== undefined && lostThrough > lastSeq) {
    await recordLoss(trx, upload, { afterSeq: lastSeq, throughSeq: lostThrough });
    await moveLastSeq(trx, upload, lostThrough);
  }
  const reached = Math.max(lastSeq, lostThrough ?? 0);
  if (previousSeq <= reached) return reached;
  throw new TidegateError("sequence-gap", "A batch before this one is missing; send again from lastSeq.", {
    extensions: { lastSeq },
  });
}

/** Which mutations are new, and which carry a used id with other content. A repeat inside the batch counts once. */
function sortOut(
  upload: Upload,
  known: Map<string, KnownMutation>,
): { fresh: JudgedMutation[]; reused: Set<string> } {
  const fresh = new Map<string, JudgedMutation>();
  const reused = new Set<string>();
  for (const mutation of upload.mutations) {
    const before = known.get(mutation.id) ?? fresh.get(mutation.id);
    if (!before) fresh.set(mutation.id, mutation);
    else if (!isSame(mutation, before, upload.userId)) reused.add(keyOf(mutation));
  }
  return { fresh: [...fresh.values()], reused };
}

/** Names one mutation of a batch, also when its id stands there twice. */
export function keyOf({ seq, id }: { seq: number; id: string }): string {
  return `${seq}/${id}`;
}

function isSame(mutation: JudgedMutation, before: KnownMutation | JudgedMutation, userId: string): boolean {
  if ("userId" in before && before.userId !== userId) return false;
  const earlier = "userId" in before ? [before.fingerprint] : before.fingerprints;
  return mutation.fingerprints.some((print) => earlier.includes(print));
}

function toFreshlyKnown(
  { id, seq, entity, fingerprints, verdict }: JudgedMutation,
  { clientId, userId }: Upload,
): KnownMutation {
  const rejected = "rejected" in verdict ? verdict.rejected : null;
  const tempId = "text" in verdict ? verdict.tempId : undefined;
  return {
    id,
    seq,
    clientId,
    userId,
    entity,
    fingerprint: fingerprints[0] ?? "",
    status: rejected ? "rejected" : "pending",
    blockedBy: null,
    held: false,
    recordId: null,
    version: null,
    tempId: tempId === undefined ? null : toTempId(tempId),
    problem: rejected,
  };
}

interface BlockTarget {
  codec: PayloadCodec;
  upstreamId: string;
  ackedSeq: number;
}

async function writeBlock(
  trx: Transaction<Database>,
  upload: Upload,
  fresh: JudgedMutation[],
  { codec, upstreamId, ackedSeq }: BlockTarget,
): Promise<void> {
  const { tenantId, clientId } = upload;
  const rejections = fresh.map(({ verdict }) => ("rejected" in verdict ? verdict.rejected : null));
  const tempIds = fresh.map(({ verdict }) => ("text" in verdict ? (verdict.tempId ?? null) : null));
  const blockSeq = fresh.at(-1)?.seq ?? 0;
  await sql`
    with keys as (
      insert into mutation_key
        (tenant_id, mutation_id, client_id, seq, entity, fingerprint, temp_id, status, problem, settled_at)
      select ${tenantId}, m.id, ${clientId}, m.seq, m.entity, m.fingerprint, m.temp_id,
        case when m.problem is not null then 'rejected' end, m.problem,
        case when m.problem is not null then now() end
      from unnest(
        ${fresh.map(({ id }) => id)}::uuid[], ${fresh.map(({ seq }) => seq)}::bigint[],
        ${fresh.map(({ entity }) => entity)}::text[], ${fresh.map(({ fingerprints }) => `\\x${fingerprints[0]}`)}::bytea[],
        ${tempIds}::uuid[], ${rejections.map((problem) => problem && JSON.stringify(problem))}::jsonb[]
      ) as m (id, seq, entity, fingerprint, temp_id, problem)
      order by m.id
    ), block as (
      insert into inbox_block
        (tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, key_id, payload)
      values (${tenantId}, ${clientId}, ${blockSeq}, ${upload.userId}, ${upload.scopes}, ${upload.roles},
        ${upload.requestId}, ${codec.keyId}, ${codec.encode(encodeBlock(fresh.map(toBlockEntry)))})
    ), log_end as (
      update client set last_seq = ${ackedSeq} where tenant_id = ${tenantId} and client_id = ${clientId}
    )
    insert into lane (tenant_id, lane_id, upstream_id, client_id, tail, due_at)
    values (${tenantId}, ${clientId}, ${upstreamId}, ${clientId}, ${blockSeq}, now())
    on conflict (tenant_id, lane_id) do update
      set tail = excluded.tail, due_at = coalesce(lane.due_at, excluded.due_at)`.execute(trx);
}

function toBlockEntry({
  seq,
  id,
  verdict,
}: JudgedMutation): { text: string } | { rejected: RejectedMutation } {
  return "text" in verdict ? { text: verdict.text } : { rejected: { seq, id, problem: verdict.rejected } };
}

async function moveLastSeq(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  lastSeq: number,
): Promise<void> {
  await trx
    .updateTable("client")
    .set({ last_seq: lastSeq })
    .where("tenant_id", "=", tenantId)
    .where("client_id", "=", clientId)
    .execute();
}

function sequenceReused({ seq }: JudgedMutation, lastSeq: number): TidegateError {
  return new TidegateError(
    "sequence-reused",
    `Position ${seq} was used for another mutation; take a new clientId and send again.`,
    { extensions: { lastSeq } },
  );
}

const collisions: ReadonlySet<unknown> = new Set(["23505" /* unique_violation */, "40P01" /* deadlock */]);

function isCollision(error: unknown): boolean {
  return error instanceof Error && "code" in error && collisions.has(error.code);
}
