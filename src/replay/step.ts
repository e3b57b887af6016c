import type { RecordWrite } from "../change-feed/write.ts";
import type { DeliveryState, StoredProblem } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";
import { scopesOf } from "../records/scopes.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { MappingError } from "../upstream/mapping.ts";
import {
  createResolvers,
  deleteResolvers,
  isOurs,
  updateResolvers,
  type Effect,
  type EffectContext,
  type History,
} from "./effect.ts";
import { afterChange, judgeChange, judgeCreate, ownBase, type Target } from "./judge.ts";
import type { OpenDelivery } from "./lane.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { assertMayStart, commitSlice, ensureLease, isLeaseTooShort, type Slice } from "./slice.ts";

/** What one mutation comes to at the upstream, before it is written down. */
export type Verdict =
  | { kind: "applied"; serverId: string; record: RecordWrite | undefined; version: number | undefined }
  | {
      kind: "conflict";
      serverId: string | undefined;
      record: RecordWrite | undefined;
      version: number | undefined;
    }
  | { kind: "rejected"; problem: StoredProblem }
  | { kind: "parked"; problem: StoredProblem; possiblySent: boolean; error: UpstreamError | undefined }
  | { kind: "retry"; error: UpstreamError | undefined; possiblySent: boolean; afterMs: number | undefined };

/** Judges a prepared mutation and takes it to the upstream. Throws what stops the whole slice: a lost or short lease. */
export async function replayOne(
  slice: Slice,
  ready: ReadyMutation,
  delivery: OpenDelivery | undefined,
): Promise<Verdict> {
  const attempt = startAttempt(slice, ready, delivery);
  try {
    return ready.mutation.op === "create"
      ? await replayCreate(slice, ready, attempt)
      : await replayChange(slice, ready, attempt);
  } catch (error) {
    return toFailure(error, attempt);
  }
}

interface Attempt {
  context: Omit<EffectContext, "whole" | "id" | "version">;
  delivery: OpenDelivery | undefined;
  /** Whether a call that may take effect was begun in this attempt. */
  sent: boolean;
}

function startAttempt(slice: Slice, ready: ReadyMutation, delivery: OpenDelivery | undefined): Attempt {
  const { mutation, author, data, tempId } = ready;
  const attempt: Attempt = {
    delivery,
    sent: false,
    context: {
      upstream: slice.upstream,
      entity: mutation.entity,
      data,
      tempId: tempId === undefined ? undefined : toTempId(tempId),
      isGuarded: mutation.baseVersion !== null,
      history: historyOf(delivery),
      nowMs: Date.now(),
      call: {
        mayStart: () => assertMayStart(slice),
        signal: slice.signal,
        actor: author.userId,
        requestId: author.requestId,
        idempotencyKey: mutation.id,
      },
      onSend: () => {
        attempt.sent = true;
      },
    },
  };
  return attempt;
}

function historyOf(delivery: OpenDelivery | undefined): History {
  const now = new Date();
  return {
    possiblySent: delivery?.possiblySent ?? false,
    firstSentAt: delivery?.firstSentAt ?? now,
    lastSentAt: delivery?.lastSentAt ?? now,
  };
}

async function replayCreate(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict> {
  const fault = judgeCreate(ready);
  if (fault) return { kind: "rejected", problem: fault };
  const { config, serverId, tempId, data } = ready;
  await beforeSending(slice, ready, attempt, config.create.class === "opaque");
  const id = config.create.class === "client-id" ? (tempId ?? serverId) : undefined;
  const context = { ...attempt.context, id, whole: data, version: undefined };
  const effect = await onConflict(context, createResolvers[config.create.class](context), noRecord);
  if (effect.kind !== "applied") return toVerdict(slice, ready, effect, undefined, attempt);
  const createdId = effect.answer?.id ?? id;
  if (createdId === undefined) return await withoutId(slice, ready, attempt);
  return created(slice, ready, createdId, effect.answer);
}

/** The upstream took the record and did not say which it is: it is looked for, or a person is asked. */
async function withoutId(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict> {
  const { upstream, entity, tempId, call } = attempt.context;
  const canLookUp = ready.config.lookup !== undefined && tempId !== undefined;
  const found = canLookUp ? await upstream.lookup({ ...call, entity, tempId }) : [];
  if (found.length === 1 && found[0]) return created(slice, ready, found[0].id, found[0]);
  const detail = "The upstream created the record and did not tell its ID.";
  return {
    kind: "parked",
    problem: problem("upstream-unexpected", detail),
    possiblySent: true,
    error: undefined,
  };
}

function created(
  { claim }: Slice,
  { mutation, config, tempId, data }: ReadyMutation,
  serverId: string,
  answer: UpstreamAnswer | undefined,
): Verdict {
  const after = answer?.data ?? data;
  const record: RecordWrite = {
    entity: mutation.entity,
    serverId,
    begunAt: 0,
    data: after,
    scopes: scopesOf(config.scopes, after),
    upstreamVersion: answer?.version ?? null,
    tempId: tempId ?? null,
    createdBy: claim.clientId,
    changedBy: claim.clientId,
    changedBase: 0,
  };
  return { kind: "applied", serverId, record, version: undefined };
}

async function replayChange(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict> {
  const { mutation, serverId = "", config } = ready;
  const read = async (): Promise<UpstreamAnswer | undefined> => {
    await ensureLease(slice);
    return await slice.upstream.read({ ...attempt.context.call, entity: mutation.entity, id: serverId });
  };
  const readUnseen = (): Promise<UpstreamAnswer | undefined> => read().catch(noneIfRefused);
  const judgement = await judgeChange(slice, ready, readUnseen);
  if (judgement.kind === "rejected") return judgement;
  const { target } = judgement;
  if (target.data === null && mutation.op === "delete") return alreadyGone(serverId, target);
  const context: EffectContext = {
    ...attempt.context,
    id: serverId,
    whole: afterChange(target, ready),
    version: target.upstreamVersion ?? undefined,
  };
  if (judgement.kind === "conflict") {
    const effect = await settleStale(context, ready, target, read);
    return toVerdict(slice, ready, effect, target, attempt);
  }
  const operation = mutation.op === "delete" ? config.delete : config.update;
  await beforeSending(slice, ready, attempt, operation.class === "opaque");
  const resolvers = mutation.op === "delete" ? deleteResolvers : updateResolvers;
  const effect = await onConflict(context, resolvers[operation.class](context), read);
  return toVerdict(slice, ready, effect, target, attempt);
}

/** What may have been sent before may itself be what moved the version; then the record holds it. */
async function settleStale(
  { data, history }: EffectContext,
  { mutation }: ReadyMutation,
  target: Target,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  if (!history.possiblySent || target.data === null)
    return { kind: "conflict", current: undefined, wasRead: false };
  const current = await read();
  const isDone = mutation.op === "delete" ? !current : current !== undefined && isOurs(current, data);
  return isDone ? { kind: "applied", answer: current } : { kind: "conflict", current, wasRead: true };
}

const noRecord = (): Promise<undefined> => Promise.resolve(undefined);

/** A call that the upstream refused because the record is not as expected ends the mutation, with the record as it is. */
async function onConflict(
  { history }: EffectContext,
  call: Promise<Effect>,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof UpstreamError) || error.disposition !== "conflict" || error.systemic) throw error;
    if (history.possiblySent) return { kind: "unclear", why: "a repeated call was answered with a conflict" };
    return { kind: "conflict", current: await read(), wasRead: read !== noRecord };
  }
}

/** An upstream that won't even look for such an ID has no such record. */
function noneIfRefused(error: unknown): undefined {
  if (error instanceof UpstreamError && error.disposition === "reject") return undefined;
  throw error;
}

function alreadyGone(serverId: string, { stored }: Target): Verdict {
  return { kind: "applied", serverId, record: undefined, version: stored?.version };
}

/** The lease must outlive the call; and on an upstream that can't tell, the intent is written down before the call. */
async function beforeSending(
  slice: Slice,
  { mutation, recordKey, refersTo }: ReadyMutation,
  { delivery, context }: Attempt,
  isOpaque: boolean,
): Promise<void> {
  await ensureLease(slice);
  if (!isOpaque || context.history.possiblySent) return;
  await commitSlice(slice, {
    position: slice.position,
    failures: slice.failures,
    delivery: {
      upstreamId: slice.claim.upstreamId,
      clientId: slice.claim.clientId,
      mutationId: mutation.id,
      seq: mutation.seq,
      recordKey,
      refersTo,
      state: "sending" satisfies DeliveryState,
      blockedBy: null,
      possiblySent: false,
      sentAt: new Date(),
      evidence: null,
      problem: null,
      attempts: delivery?.attempts ?? 0,
    },
  });
}

function toVerdict(
  slice: Slice,
  ready: ReadyMutation,
  effect: Effect,
  target: Target | undefined,
  { context }: Attempt,
): Verdict {
  switch (effect.kind) {
    case "applied":
      return {
        ...toChanged(slice, ready, target, effect.answer),
        kind: "applied",
        serverId: ready.serverId ?? "",
      };
    case "conflict":
      return { ...toCurrent(ready, target, effect), kind: "conflict", serverId: ready.serverId };
    case "unclear":
      return {
        kind: "parked",
        problem: problem(
          "upstream-unclear",
          `It is not known whether the change took effect: ${effect.why}.`,
        ),
        possiblySent: true,
        error: undefined,
      };
    case "wait":
      return {
        kind: "retry",
        error: undefined,
        afterMs: effect.forMs,
        possiblySent: context.history.possiblySent,
      };
  }
}

type Change = Pick<Extract<Verdict, { kind: "applied" }>, "record" | "version">;

/** The record after our own change. */
function toChanged(
  { claim }: Slice,
  ready: ReadyMutation,
  target: Target | undefined,
  answer: UpstreamAnswer | undefined,
): Change {
  if (!target) throw new Error("a change without its record");
  const { mutation, config } = ready;
  const isDelete = mutation.op === "delete";
  const data = isDelete ? null : (answer?.data ?? afterChange(target, ready));
  const record: RecordWrite = {
    entity: mutation.entity,
    serverId: ready.serverId ?? "",
    begunAt: target.stored?.feedPosition ?? 0,
    data,
    scopes: data === null ? scopesBefore(ready, target) : scopesOf(config.scopes, data),
    upstreamVersion: answer?.version ?? null,
    tempId: null,
    createdBy: null,
    changedBy: claim.clientId,
    changedBase: ownBase(claim.clientId, target.stored),
  };
  return { record, version: undefined };
}

/** The record as somebody else left it, if it was asked for and is news. */
function toCurrent(
  ready: ReadyMutation,
  target: Target | undefined,
  found: { current: UpstreamAnswer | undefined; wasRead: boolean },
): Change {
  const stored = target?.stored;
  const data = found.current === undefined ? null : found.current.data;
  if (!target || !found.wasRead || data === undefined || data === target.data) {
    return { record: undefined, version: stored?.version };
  }
  const record: RecordWrite = {
    entity: ready.mutation.entity,
    serverId: ready.serverId ?? "",
    begunAt: stored?.feedPosition ?? 0,
    data,
    scopes: data === null ? scopesBefore(ready, target) : scopesOf(ready.config.scopes, data),
    upstreamVersion: found.current?.version ?? null,
    tempId: null,
    createdBy: null,
    changedBy: null,
    changedBase: null,
  };
  return { record, version: undefined };
}

function scopesBefore({ config }: ReadyMutation, { stored, data }: Target): string[] {
  return stored?.scopes ?? (data === null ? [] : scopesOf(config.scopes, data));
}

function toFailure(error: unknown, { context, sent }: Attempt): Verdict {
  const before = context.history.possiblySent;
  if (error instanceof MappingError) {
    const detail = "A mapping can't take the data.";
    return {
      kind: "parked",
      problem: problem("upstream-unexpected", detail),
      possiblySent: before,
      error: undefined,
    };
  }
  if (!(error instanceof UpstreamError) || isLeaseTooShort(error)) throw error;
  const isAmbiguous = sent && error.certainty === "ambiguous";
  const possiblySent = before || isAmbiguous;
  if (error.systemic || error.disposition === "retry" || isAmbiguous) {
    return { kind: "retry", error, possiblySent, afterMs: error.retryAfterMs };
  }
  const answer = error.status === undefined ? "" : ` ${error.status}`;
  if (error.disposition === "reject") {
    return {
      kind: "rejected",
      problem: problem("upstream-rejected", `The upstream refused the data${answer}.`),
    };
  }
  const detail = `The upstream gave an unexpected answer${answer}.`;
  return { kind: "parked", problem: problem("upstream-unexpected", detail), possiblySent, error };
}
