import type { Kysely, Transaction } from "kysely";

import { lockClient, recordLoss, type ClientKey } from "../clients/client.ts";
import { createBatcher, type Batched } from "../platform/batcher.ts";
import { inTenantAtOnce, inTenantWithLast } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";
import { appendToLogs, type JudgedMutation, type LogAppend, type TakenAppend } from "./log.ts";
import { readKnown, type KnownMutation } from "./results.ts";

export interface Upload extends ClientKey {
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
  upstreamId: string;
  previousSeq: number;
  lostThrough: number | undefined;
  mutations: JudgedMutation[];
}

export interface Appended {
  ackedSeq: number;
  /** The log grew, and nobody looks at its lane unless woken. */
  wakes: boolean;
  /** The positions after `afterSeq` that the client has just given up. */
  lost: { afterSeq: number; throughSeq: number } | undefined;
  /** Those of the batch (`keyOf`) whose id was used before for other content. */
  reused: Set<string>;
  /** What is recorded of the batch's mutations now, by id. */
  known: Map<string, KnownMutation>;
}

export interface Inbox {
  /**
   * Appends a batch to its client's log, in one transaction under the client's lock and in a fixed number of statements.
   * When it returns, every mutation of the batch is durable: appended now, or known before.
   *
   * @throws {TidegateError} `client-owned`, `sequence-gap`, `sequence-reused`; nothing of the batch was taken then.
   */
  append: (upload: Upload) => Promise<Appended>;
}

/** What goes into one transaction. A larger upload goes alone. */
const togetherMax = { items: 64, bytes: 2 * 1024 * 1024 };

/**
 * Opens the inbox. Uploads of new mutations, which is what nearly all are, go together: those of one tenant that come in
 * while a transaction is under way share the next one. Whatever turns out to be otherwise (a repeat, a gap, a stranger's
 * client, a known id) is looked at alone.
 */
export function createInbox(db: Kysely<Database>, codec: PayloadCodec): Inbox {
  const tenants = new Map<string, Batched<LogAppend, TakenAppend | undefined>>();
  const together = (tenantId: string): Batched<LogAppend, TakenAppend | undefined> => {
    const known = tenants.get(tenantId);
    if (known) return known;
    const batched = createBatcher((appends: LogAppend[]) => appendTogether(db, tenantId, appends, codec), {
      itemsMax: togetherMax.items,
      // While one transaction reaches the disk, the next is made.
      callsMax: 2,
      weight: { max: togetherMax.bytes, of: bytesOf },
    });
    tenants.set(tenantId, batched);
    return batched;
  };
  return {
    async append(upload) {
      const whole = toWholeAppend(upload);
      const taken = whole && (await together(upload.tenantId)(whole));
      if (taken) return allFresh(upload, taken);
      return await appendAlone(db, upload, codec);
    },
  };
}

function bytesOf({ mutations }: LogAppend): number {
  return mutations.reduce((sum, { verdict }) => sum + ("text" in verdict ? verdict.text.length : 0), 0);
}

/** The upload as it goes into the log if nothing of it is known; undefined when it must be looked at alone. */
function toWholeAppend(upload: Upload): LogAppend | undefined {
  const { mutations, lostThrough } = upload;
  const last = mutations.at(-1);
  if (!last || lostThrough !== undefined) return undefined;
  if (new Set(mutations.map(({ id }) => id)).size < mutations.length) return undefined;
  return { ...upload, ackedSeq: last.seq };
}

function allFresh(upload: Upload, { laneWasIdle }: TakenAppend): Appended {
  const { mutations } = upload;
  return {
    ackedSeq: mutations.at(-1)?.seq ?? 0,
    wakes: laneWasIdle,
    lost: undefined,
    reused: new Set(),
    known: new Map(mutations.map((mutation) => [mutation.id, toFreshlyKnown(mutation, upload)])),
  };
}

/** Appends what is wholly new; what was not has undefined in its place. */
async function appendTogether(
  db: Kysely<Database>,
  tenantId: string,
  appends: LogAppend[],
  codec: PayloadCodec,
): Promise<(TakenAppend | undefined)[]> {
  // Of two uploads of one client, the later one is looked at when the first is durable.
  const firsts = new Map(appends.map((append) => [append.clientId, append] as const).toReversed());
  const distinct = appends.filter((append) => firsts.get(append.clientId) === append);
  try {
    const taken = await inTenantAtOnce(db, tenantId, (trx) => appendToLogs(trx, tenantId, distinct, codec));
    return appends.map((append) => taken.get(distinct.indexOf(append)));
  } catch (error) {
    if (!isFaultOfOne(error)) throw error;
    return appends.map(() => undefined);
  }
}

const attemptsMax = 5;

/** Appends what is new of an upload, and finds out what is known. */
async function appendAlone(db: Kysely<Database>, upload: Upload, codec: PayloadCodec): Promise<Appended> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTenantWithLast(db, upload.tenantId, (trx) => appendIn(trx, upload, codec));
    } catch (error) {
      // Another client brought the same mutation at the same moment; by now its key is readable.
      if (!isCollision(error) || attempt === attemptsMax) throw error;
    }
  }
}

async function appendIn(
  trx: Transaction<Database>,
  upload: Upload,
  codec: PayloadCodec,
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
  for (const mutation of fresh) known.set(mutation.id, toFreshlyKnown(mutation, upload));
  const lost = lastSeq > before ? { afterSeq: before, throughSeq: lastSeq } : undefined;
  // Of an upload that was looked at alone it is not known by then whether its lane was idle.
  const result = { ackedSeq, wakes: fresh.length > 0, lost, reused, known };
  if (fresh.length > 0) {
    return { result, last: appendFresh(trx, { ...upload, mutations: fresh, ackedSeq }, codec) };
  }
  return { result, last: ackedSeq > lastSeq ? moveLastSeq(trx, upload, ackedSeq) : undefined };
}

async function appendFresh(
  trx: Transaction<Database>,
  upload: LogAppend & ClientKey,
  codec: PayloadCodec,
): Promise<void> {
  const taken = await appendToLogs(trx, upload.tenantId, [upload], codec);
  if (taken.size === 0) throw new Error("a log that is locked was not where it was found");
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

/** What one upload brings along, and not the database's own trouble: bad data, a conflict, a deadlock. */
function isFaultOfOne(error: unknown): boolean {
  return error instanceof Error && "code" in error && /^(22|23|40)/.test(String(error.code));
}

const collisions: ReadonlySet<unknown> = new Set(["23505" /* unique_violation */, "40P01" /* deadlock */]);

function isCollision(error: unknown): boolean {
  return error instanceof Error && "code" in error && collisions.has(error.code);
}
