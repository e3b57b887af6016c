import type { Kysely } from "kysely";
import type { Logger } from "pino";

import { clientAudience, hintKeys } from "../change-feed/audience.ts";
import type { ClientKey } from "../clients/client.ts";
import { keyOf, type Appended, type Inbox } from "../inbox/append.ts";
import type { JudgedMutation } from "../inbox/log.ts";
import { isSettled, readKnown, type KnownMutation } from "../inbox/results.ts";
import { problemOf, toResult, toResults, type MutationResult } from "../inbox/result-view.ts";
import { refusedAmong, type OnTold } from "../inbox/told.ts";
import type { Identity } from "../http/identity.ts";
import { inTenant } from "../platform/db.ts";
import type { Hints } from "../platform/hints.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import type { BatchEnvelope } from "./envelope.ts";

export interface UploadDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  inbox: Inbox;
  hints: Hints;
  /** Says "look at this lane"; best effort, never awaited. */
  wake: (tenantId: string, laneId: string) => void;
  log: Logger;
  onTold: OnTold;
  /** Told when a client has reported that mutations of its are lost. */
  onLoss: (tenantId: string) => void;
}

export interface Receipt {
  ackedSeq: number;
  results: MutationResult[];
  idMappings: { entity: string; tempId: string; serverId: string }[];
  allFinal: boolean;
}

export interface UploadOptions {
  upstreamId: string;
  requestId: string;
  /** How long to wait for outcomes. */
  waitMs: number;
  /** Ends the wait early. */
  giveUp: AbortSignal;
}

/**
 * Takes a judged batch: durable first, then the lane is woken, then outcomes are waited for. Once it is durable nothing
 * fails it any more: what can't be read then is answered as it was last known.
 *
 * @throws {TidegateError} as `Inbox.append`; nothing of the batch was taken then.
 */
export async function takeUpload(
  deps: UploadDeps,
  identity: Identity,
  envelope: BatchEnvelope,
  judged: JudgedMutation[],
  { upstreamId, requestId, waitMs, giveUp }: UploadOptions,
): Promise<Receipt> {
  const { tenantId, userId, scopes, roles } = identity;
  const clientId = envelope.clientId.toLowerCase();
  const { previousSeq } = envelope;
  // Members that a serializer wrote as null count as absent.
  const lostThrough = envelope.lostThrough ?? undefined;
  const author = { tenantId, clientId, userId, scopes, roles, requestId };
  const appended = await deps.inbox.append({
    ...author,
    upstreamId,
    previousSeq,
    lostThrough,
    mutations: judged,
  });
  const { wakes, lost } = appended;
  if (wakes) deps.wake(tenantId, clientId);
  if (lost) {
    deps.onLoss(tenantId);
    deps.log.error({ tenantId, clientId, requestId, ...lost }, "a client has lost mutations");
  }
  const known = await awaitOutcomes(deps, { tenantId, clientId }, appended.known, { waitMs, giveUp });
  const receipt = await toReceipt(deps, identity, judged, { ...appended, known });
  // Who asks again was not told before. That this answer arrives, nobody knows: an outcome that it is the first to tell is
  // read when the client comes again.
  deps.onTold(tenantId, refusedAmong(ownOf(appended.known, identity)));
  return receipt;
}

/** The first pause between looks for outcomes of which no word came; each further one is twice as long, up to the last. */
const lookPause = { firstMs: 250, lastMs: 4_000 };

async function awaitOutcomes(
  { db, hints, log }: UploadDeps,
  { tenantId, clientId }: ClientKey,
  appended: Map<string, KnownMutation>,
  { waitMs, giveUp }: Pick<UploadOptions, "waitMs" | "giveUp">,
): Promise<Map<string, KnownMutation>> {
  if (waitMs === 0) return appended;
  const deadline = performance.now() + waitMs;
  const known = new Map(appended);
  const keys = hintKeys(tenantId, [clientAudience(clientId)]);
  for (let pauseMs = lookPause.firstMs; ; pauseMs = Math.min(2 * pauseMs, lookPause.lastMs)) {
    const leftMs = deadline - performance.now();
    const open = unsettled(known);
    if (leftMs <= 0 || giveUp.aborted || open.length === 0) return known;
    // Asked for before the look, so that what happens during it is not missed.
    const hint = hints.next(keys, Math.min(leftMs, pauseMs), giveUp);
    try {
      const news = await inTenant(db, tenantId, (trx) => readKnown(trx, tenantId, open));
      for (const [id, mutation] of news) known.set(id, mutation);
    } catch (error) {
      log.warn({ err: error, tenantId }, "the outcomes after an upload could not be read");
      return known;
    }
    if (unsettled(known).length > 0) await hint;
  }
}

function unsettled(known: ReadonlyMap<string, KnownMutation>): string[] {
  return [...known.values()].filter((mutation) => !isSettled(mutation)).map(({ id }) => id);
}

async function toReceipt(
  deps: UploadDeps,
  identity: Identity,
  judged: JudgedMutation[],
  { ackedSeq, reused, known }: Pick<Appended, "ackedSeq" | "reused" | "known">,
): Promise<Receipt> {
  const own = ownOf(known, identity);
  const views = await viewsOf(deps, identity, own);
  const byId = new Map(views.map((view) => [view.id, view]));
  const results = judged.map((mutation): MutationResult => {
    const recorded = byId.get(mutation.id);
    if (reused.has(keyOf(mutation)) || !recorded) return reusedResult(mutation, recorded);
    return recorded.seq === mutation.seq ? recorded : { ...recorded, seq: mutation.seq };
  });
  return {
    ackedSeq,
    results,
    idMappings: own.flatMap(({ status, entity, tempId, recordId }) =>
      status === "applied" && tempId && recordId ? [{ entity, tempId, serverId: recordId }] : [],
    ),
    allFinal: results.every(({ status }) => status !== "pending" && status !== "parked"),
  };
}

function ownOf(known: ReadonlyMap<string, KnownMutation>, { userId }: Identity): KnownMutation[] {
  return [...known.values()].filter((mutation) => mutation.userId === userId);
}

/** The results as the user may see them; only conflicts need the records as they stand now. */
async function viewsOf(
  { db, codec, log }: UploadDeps,
  identity: Identity,
  own: KnownMutation[],
): Promise<MutationResult[]> {
  const { tenantId } = identity;
  try {
    if (own.some(({ status }) => status === "conflict")) {
      return await inTenant(db, tenantId, (trx) => toResults(trx, identity, own, codec));
    }
  } catch (error) {
    log.warn({ err: error, tenantId }, "the records after an upload could not be read");
  }
  return own.map((mutation) => toResult(mutation, identity));
}

function reusedResult({ seq, id }: JudgedMutation, original: MutationResult | undefined): MutationResult {
  const problem = problemOf({
    code: "idempotency-key-reused",
    detail: "A mutation with this id but other content is recorded, and stands.",
  });
  return { seq, id, status: "rejected", problem, ...(original && { original }) };
}
