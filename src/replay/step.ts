import type { AppliedMutation } from "../change-feed/applied-log.ts";
import type { RecordWrite } from "../change-feed/write.ts";
import type { AttemptDisposition, DeliveryState, StoredProblem } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";
import { scopesOf } from "../records/scopes.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { MappingError } from "../upstream/mapping.ts";
import { watchCalls, type CallWatch } from "./call-watch.ts";
import {
  createResolvers,
  deleteResolvers,
  isConflict,
  isOurs,
  updateResolvers,
  type Effect,
  type EffectContext,
  type History,
} from "./effect.ts";
import {
  afterChange,
  judgeChange,
  judgeCreate,
  noSuchRecord,
  ownBase,
  type Judgement,
  type Target,
} from "./judge.ts";
import type { OpenDelivery } from "./lane.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { ownLater } from "./recovery.ts";
import {
  commitSlice,
  databaseNow,
  ensureLease,
  isShadow,
  keepAttempt,
  LaneLost,
  type Slice,
} from "./slice.ts";

/** What one mutation comes to at the upstream, before it is written down. */
export type Verdict =
  | {
      kind: "applied";
      serverId: string;
      record: RecordWrite | undefined;
      version: number | undefined;
      history: History;
    }
  | {
      kind: "conflict";
      serverId: string | undefined;
      record: RecordWrite | undefined;
      version: number | undefined;
      history: History;
    }
  | { kind: "rejected"; problem: StoredProblem }
  | { kind: "parked"; problem: StoredProblem; history: History; error: UpstreamError | undefined }
  | { kind: "retry"; error: UpstreamError | undefined; history: History; afterMs: number | undefined };

/** Whether a mutation may be made, and what is known of the record that it changes. */
export interface Judges {
  create: (ready: ReadyMutation) => StoredProblem | undefined;
  change: (...asked: Parameters<typeof judgeChange>) => Promise<Judgement>;
}

const rules: Judges = { create: judgeCreate, change: judgeChange };

/**
 * Judges a prepared mutation and takes it to the upstream. What is kept of the attempt goes with the slice's next commit.
 *
 * @param judges by default the tenant's rules, which are for what clients ask of the primary.
 * @throws {LaneLost}, or what nobody foresaw.
 */
export async function replayOne(
  slice: Slice,
  ready: ReadyMutation,
  delivery: OpenDelivery | undefined,
  judges: Judges = rules,
): Promise<Verdict> {
  const attempt = startAttempt(slice, ready, delivery);
  try {
    const verdict = await tryOne(slice, ready, attempt, judges);
    slice.attempt = attempt.watch.toAttempt(dispositionOf(verdict, attempt));
    return verdict;
  } catch (error) {
    const disposition = error instanceof LaneLost ? "stale" : "unclear";
    if (attempt.watch.hasSent()) await keepAttempt(slice, attempt.watch.toAttempt(disposition));
    throw error;
  }
}

async function tryOne(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  try {
    return ready.mutation.op === "create"
      ? await replayCreate(slice, ready, attempt, judges)
      : await replayChange(slice, ready, attempt, judges);
  } catch (error) {
    if (error instanceof UpstreamError) attempt.watch.failed(error);
    return toFailure(slice, ready, error, attempt);
  }
}

function dispositionOf(verdict: Verdict, { changedAt }: Attempt): AttemptDisposition {
  switch (verdict.kind) {
    case "applied":
    case "conflict":
      return verdict.kind;
    case "rejected":
      return "reject";
    case "parked":
      return verdict.problem.code === "upstream-unclear" ? "unclear" : "park";
    case "retry":
      return changedAt ? "unclear" : "retry";
  }
}

interface Attempt {
  watch: CallWatch;
  context: Omit<EffectContext, "whole" | "id" | "version" | "before">;
  delivery: OpenDelivery | undefined;
  /** When the first call of this attempt began that took effect, or may have. */
  changedAt: Date | undefined;
}

function startAttempt(slice: Slice, ready: ReadyMutation, delivery: OpenDelivery | undefined): Attempt {
  const { mutation, author, data, tempId } = ready;
  const now = databaseNow(slice);
  const watch = watchCalls(slice, ready);
  const attempt: Attempt = {
    watch,
    delivery,
    changedAt: undefined,
    context: {
      upstream: slice.upstream,
      entity: mutation.entity,
      op: mutation.op,
      data,
      dataLater: delivery?.isAssumed ? ownLater(slice, ready) : [],
      tempId: tempId === undefined ? undefined : toTempId(tempId),
      isGuarded: mutation.baseVersion !== null,
      history: {
        possiblySent: delivery?.possiblySent ?? false,
        isAssumed: delivery?.isAssumed ?? false,
        firstSentAt: delivery?.firstSentAt ?? now,
        lastSentAt: delivery?.lastSentAt ?? now,
      },
      nowMs: now.getTime(),
      call: {
        mayStart: watch.mayStart,
        onStatus: watch.onStatus,
        signal: slice.signal,
        actor: author.userId || undefined,
        requestId: author.requestId || undefined,
        idempotencyKey: mutation.id,
      },
      change: (call) => noted(slice, attempt, call),
    },
  };
  return attempt;
}

/** A call that was refused, or not sent, has changed nothing. Every other one has, or may have. */
async function noted<T>(slice: Slice, attempt: Attempt, call: () => Promise<T>): Promise<T> {
  const before = attempt.changedAt;
  attempt.changedAt ??= databaseNow(slice);
  try {
    return await attempt.watch.changing(call);
  } catch (error) {
    if (isUnchanged(error)) attempt.changedAt = before;
    throw error;
  }
}

function isUnchanged(error: unknown): boolean {
  return error instanceof MappingError || (error instanceof UpstreamError && error.certainty !== "ambiguous");
}

/** What is known of the mutation's calls after this attempt. */
function historyAfter(slice: Slice, { context: { history }, changedAt }: Attempt): History {
  if (!changedAt) return history;
  return {
    possiblySent: true,
    isAssumed: false,
    firstSentAt: history.possiblySent ? history.firstSentAt : changedAt,
    lastSentAt: databaseNow(slice),
  };
}

async function replayCreate(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  const fault = judges.create(ready);
  if (fault) return { kind: "rejected", problem: fault };
  const { config, serverId, tempId, data } = ready;
  await beforeSending(slice, ready, attempt, config.create.class === "opaque");
  const choosesId = config.create.class === "client-id" || config.create.method === "PUT";
  const id = choosesId ? (tempId ?? serverId) : undefined;
  const context = { ...attempt.context, id, whole: data, version: undefined, before: null };
  const effect = await createOrConflict(context);
  if (effect.kind !== "applied") return toVerdict(slice, ready, effect, undefined, attempt);
  const createdId = effect.answer?.id ?? id;
  if (createdId === undefined) return await withoutId(slice, ready, attempt);
  return created(slice, ready, createdId, effect.answer, historyAfter(slice, attempt));
}

/** Another record is in the way; unless it is the one that an earlier call made. */
async function createOrConflict(context: EffectContext): Promise<Effect> {
  try {
    return await createResolvers[context.upstream.entity(context.entity)!.create.class](context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    if (context.history.possiblySent && !context.history.isAssumed) {
      return { kind: "unclear", why: "a repeated create was answered with a conflict" };
    }
    return { kind: "conflict", current: undefined, wasRead: false };
  }
}

/** The upstream took the record and did not say which it is: it is looked for, or a person is asked. */
async function withoutId(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict> {
  const { upstream, entity, tempId, call } = attempt.context;
  const history = historyAfter(slice, attempt);
  const canLookUp = ready.config.lookup !== undefined && tempId !== undefined;
  const found = canLookUp ? await upstream.lookup({ ...call, entity, tempId }) : [];
  if (found.length === 1 && found[0]) return created(slice, ready, found[0].id, found[0], history);
  const detail = "The upstream created the record and did not tell its ID.";
  return { kind: "parked", problem: problem("upstream-unexpected", detail), history, error: undefined };
}

export function created(
  { claim }: Slice,
  ready: ReadyMutation,
  serverId: string,
  answer: UpstreamAnswer | undefined,
  history: History,
): Verdict {
  const { mutation, config, tempId, data } = ready;
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
    mutation: appliedMutation(ready),
  };
  return { kind: "applied", serverId, record, version: undefined, history };
}

/** The mutation as those who follow the primary have to know it. */
export function appliedMutation({
  mutation: { id, op, occurredAt, data = "{}" },
  author: { userId, requestId },
  data: asSent,
}: ReadyMutation): AppliedMutation {
  const patch = op === "delete" ? undefined : { asMeant: data, asSent };
  return { id, op, userId, requestId, occurredAt, patch };
}

async function replayChange(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  const { mutation, serverId = "", config } = ready;
  const read = async (): Promise<UpstreamAnswer | undefined> => {
    await ensureLease(slice);
    return await slice.upstream.read({ ...attempt.context.call, entity: mutation.entity, id: serverId });
  };
  const readUnseen = (): Promise<UpstreamAnswer | undefined> => read().catch(noneIfRefused);
  const wasAllowed = attempt.delivery?.wasAllowed ?? false;
  const { isAssumed = false } = attempt.delivery ?? {};
  const judgement = await judges.change(slice, ready, readUnseen, { wasAllowed, isAssumed });
  if (judgement.kind === "rejected") return judgement;
  if (judgement.kind === "gone") return goneBefore(serverId, ready, attempt);
  const { target } = judgement;
  if (target.data === null && mutation.op === "delete") return alreadyGone(serverId, target, attempt);
  const context: EffectContext = {
    ...attempt.context,
    id: serverId,
    whole: afterChange(target, ready),
    before: target.data,
    version: target.upstreamVersion ?? undefined,
  };
  if (judgement.kind === "conflict") {
    const effect = await settleStale(context, ready, target, read);
    return toVerdict(slice, ready, effect, target, attempt);
  }
  const operation = mutation.op === "delete" ? config.delete : config.update;
  await beforeSending(slice, ready, attempt, operation.class === "opaque");
  const resolvers = mutation.op === "delete" ? deleteResolvers : updateResolvers;
  const effect = await changeOrConflict(context, resolvers[operation.class], read);
  return toVerdict(slice, ready, effect, target, attempt);
}

/** What may have been sent before may itself be what moved the version; then the record holds it. */
async function settleStale(
  context: EffectContext,
  { mutation }: ReadyMutation,
  target: Target,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  if (!context.history.possiblySent || target.data === null)
    return { kind: "conflict", current: undefined, wasRead: false };
  const current = await read();
  const isDone = mutation.op === "delete" ? !current : current !== undefined && isOurs(current, context);
  return isDone ? { kind: "applied", answer: current } : { kind: "conflict", current, wasRead: true };
}

/** A change that the upstream refused because the record is not as expected ends with the record as it is. */
async function changeOrConflict(
  context: EffectContext,
  resolve: (context: EffectContext) => Promise<Effect>,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  try {
    return await resolve(context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    const current = await read();
    // What an earlier call did may itself be what is in the way.
    const { history, op } = context;
    const isDone = op === "delete" ? !current : history.possiblySent && current && isOurs(current, context);
    return isDone ? { kind: "applied", answer: current } : { kind: "conflict", current, wasRead: true };
  }
}

/** An upstream that won't even look for such an ID has no such record; nor has one that can't be asked for it. */
function noneIfRefused(error: unknown): undefined {
  if (!(error instanceof UpstreamError)) throw error;
  const isUnaskable = error.certainty === "not-sent" && error.disposition === "park";
  if (error.disposition === "reject" || isUnaskable) return undefined;
  throw error;
}

/** An earlier call of this very delete may have been what removed it. */
function goneBefore(
  serverId: string,
  { mutation }: ReadyMutation,
  { context: { history } }: Attempt,
): Verdict {
  if (mutation.op !== "delete" || !history.possiblySent) return { kind: "rejected", problem: noSuchRecord };
  return { kind: "applied", serverId, record: undefined, version: undefined, history };
}

function alreadyGone(serverId: string, { stored }: Target, { context: { history } }: Attempt): Verdict {
  return { kind: "applied", serverId, record: undefined, version: stored?.version, history };
}

/**
 * The lease must outlive the call; and the intent is written down before the call on an upstream that can't tell, and for
 * what the lane had passed, or a person sends again: it is not the head that is resolved behind an owner that died.
 */
async function beforeSending(
  slice: Slice,
  { mutation, recordKey, refersTo }: ReadyMutation,
  { delivery, context }: Attempt,
  isOpaque: boolean,
): Promise<void> {
  await ensureLease(slice);
  const isTraced = slice.command !== undefined || (!isShadow(slice) && mutation.seq <= slice.position);
  if (!isTraced && (!isOpaque || context.history.possiblySent)) return;
  await commitSlice(slice, {
    position: slice.position,
    failures: slice.failures,
    delivery: {
      upstreamId: slice.claim.upstreamId,
      clientId: slice.claim.clientId,
      mutationId: mutation.id,
      seq: mutation.seq,
      op: mutation.op,
      recordKey,
      refersTo,
      state: "sending" satisfies DeliveryState,
      blockedBy: null,
      possiblySent: false,
      // A look that comes first is no call: it must not put off the time from which its answer proves something.
      firstSentAt: context.history.possiblySent ? null : databaseNow(slice),
      lastSentAt: context.history.possiblySent ? null : databaseNow(slice),
      evidence: null,
      problem: null,
      isReset: delivery?.isReset,
      attempts: delivery?.attempts ?? 0,
    },
  });
}

function toVerdict(
  slice: Slice,
  ready: ReadyMutation,
  effect: Effect,
  target: Target | undefined,
  attempt: Attempt,
): Verdict {
  const history = historyAfter(slice, attempt);
  switch (effect.kind) {
    case "applied": {
      const isCrossed = attempt.context.history.possiblySent;
      const changed = toChanged(slice, ready, target, { answer: effect.answer, isCrossed });
      return { ...changed, kind: "applied", serverId: ready.serverId ?? "", history };
    }
    case "conflict":
      return { ...toCurrent(ready, target, effect), kind: "conflict", serverId: ready.serverId, history };
    case "unclear":
      return { kind: "parked", problem: unclear(effect.why), history, error: undefined };
    case "wait":
      return { kind: "retry", error: undefined, afterMs: effect.forMs, history };
  }
}

function unclear(why: string): StoredProblem {
  return problem("upstream-unclear", `It is not known whether the change took effect: ${why}.`);
}

type Change = Pick<Extract<Verdict, { kind: "applied" }>, "record" | "version">;

/** The record after our own change. */
function toChanged(
  { claim }: Slice,
  ready: ReadyMutation,
  target: Target | undefined,
  { answer, isCrossed }: { answer: UpstreamAnswer | undefined; isCrossed: boolean },
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
    before: target.data,
    // An earlier call may have been the one that took effect, before what others did since.
    mutation: { ...appliedMutation(ready), isCrossed },
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
  const isKnown = data === target?.data && (found.current?.version ?? null) === target?.upstreamVersion;
  if (!target || !found.wasRead || data === undefined || isKnown) {
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
    before: target.data,
  };
  return { record, version: undefined };
}

function scopesBefore({ config }: ReadyMutation, { stored, data }: Target): string[] {
  return stored?.scopes ?? (data === null ? [] : scopesOf(config.scopes, data));
}

function toFailure(slice: Slice, ready: ReadyMutation, error: unknown, attempt: Attempt): Verdict {
  const history = historyAfter(slice, attempt);
  if (error instanceof MappingError) {
    slice.events.failed("park");
    return { kind: "parked", problem: unmappable, history, error: undefined };
  }
  if (!(error instanceof UpstreamError)) throw error;
  slice.events.failed(error.disposition);
  const { mutation, config } = ready;
  if (attempt.changedAt && config[mutation.op].class === "opaque" && error.certainty === "ambiguous") {
    // What is wrong there would park one mutation after another.
    slice.upstream.trip();
    return { kind: "parked", problem: unclear(error.message), history, error };
  }
  if (error.systemic || error.disposition === "retry") {
    return { kind: "retry", error, history, afterMs: error.retryAfterMs };
  }
  const answer = error.status === undefined ? "" : ` ${error.status}`;
  if (error.disposition === "reject" && !attempt.changedAt) {
    const detail = `The upstream refused the data${answer}.`;
    return { kind: "rejected", problem: problem("upstream-rejected", detail) };
  }
  const detail = `The upstream gave an unexpected answer${answer}.`;
  return { kind: "parked", problem: problem("upstream-unexpected", detail), history, error };
}

export const unmappable = problem("upstream-unexpected", "A mapping can't take the data.");
