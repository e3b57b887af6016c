import type { RecordWrite } from "../change-feed/write.ts";
import { TempIdTaken, type Mapping } from "../id-map/id-map.ts";
import type { Operation } from "../inbox/mutation.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { scopesOf } from "../records/scopes.ts";
import { BreakerOpen, UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping.ts";
import { backoffMs } from "./backoff.ts";
import type { LaneCommit, Outcome, Release } from "./commit.ts";
import type { DeliveryWrite, SettledDelivery } from "./delivery.ts";
import type { History } from "./effect.ts";
import { learn } from "./names.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { commitSlice, ensureLease, isShadow, whileLeased, type Slice } from "./slice.ts";
import { unmappable, type Verdict } from "./verdict.ts";

/**
 * How a mutation leaves the slice: passed by the lane, passed without anything to write, or still at its head with the lane
 * given back.
 */
export interface Step {
  kind: "passed" | "skipped" | "stopped";
  /** When the lane is due, if this gave it back. */
  dueInMs: number | undefined;
}

/** What a mutation is called among those that do not go straight through. */
export interface Place {
  mutationId: string;
  seq: number;
  op?: Operation;
  recordKey: string;
  refersTo: string[];
}

export function placeOf({ mutation, recordKey, refersTo }: ReadyMutation): Place {
  return { mutationId: mutation.id, seq: mutation.seq, op: mutation.op, recordKey, refersTo };
}

/** Writes down what a mutation came to. */
export async function settle(
  slice: Slice,
  ready: ReadyMutation,
  verdict: Verdict,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  switch (verdict.kind) {
    case "rejected":
      return await pass(
        slice,
        { ...toOutcome(place, "rejected", verdict.problem), delivery: closing(slice, place) },
        place,
        isLast,
      );
    case "applied":
    case "conflict":
      return await settleChanged(slice, ready, verdict, delivery, isLast);
    case "parked":
      return await park(slice, place, verdict, delivery, isLast);
    case "retry":
      return await retryLater(slice, place, verdict, delivery);
  }
}

type Changed = Extract<Verdict, { kind: "applied" | "conflict" }>;

async function settleChanged(
  slice: Slice,
  ready: ReadyMutation,
  verdict: Changed,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  const commit = {
    outcome: {
      mutationId: place.mutationId,
      status: verdict.kind,
      isNew: true,
      recordId: verdict.serverId,
      version: verdict.version,
      ...(verdict.kind === "conflict" && {
        problem: problem("upstream-conflict", "The record has changed."),
      }),
    },
    delivery: closing(slice, place),
    mapping: mappingOf(slice, ready, verdict),
  };
  try {
    let record = verdict.record;
    for (;;) {
      const step = await tryPass(slice, { ...commit, record }, place, isLast);
      if (step && commit.mapping) learn(slice, commit.mapping);
      if (step) return step;
      record = await readAgain(slice, ready, record);
    }
  } catch (error) {
    const { history } = verdict;
    // The effect took place; what failed is to write it down. What a person says stays said until it is written.
    if (error instanceof UpstreamError && !slice.command) {
      const failed = { error, history, afterMs: error.retryAfterMs };
      return await retryLater(slice, place, failed, delivery);
    }
    const fault = faultOf(error);
    if (!fault) throw error;
    return await park(slice, place, { problem: fault, history, error: undefined }, delivery, isLast);
  }
}

/** What only a person can settle, of the reasons why an effect could not be written down. */
export function faultOf(error: unknown): StoredProblem | undefined {
  if (error instanceof MappingError) return unmappable;
  if (error instanceof TempIdTaken) {
    return problem("temp-id-in-use", "Two creates of this temp ID took effect at the same moment.");
  }
  // 22: data exceptions of Postgres, such as a NUL in what the upstream calls the record.
  if (error instanceof Error && "code" in error && String(error.code).startsWith("22")) {
    return problem("upstream-unexpected", "The upstream's answer can't be stored.");
  }
  return undefined;
}

function mappingOf({ claim }: Slice, ready: ReadyMutation, verdict: Changed): Mapping | undefined {
  const { mutation, tempId } = ready;
  if (verdict.kind !== "applied" || tempId === undefined || verdict.serverId === undefined) return undefined;
  return {
    tempId,
    entity: mutation.entity,
    serverId: verdict.serverId,
    clientId: claim.clientId,
    mutationId: mutation.id,
  };
}

/** Somebody else wrote the record since our call began: only what the upstream says now may be written. */
async function readAgain(
  slice: Slice,
  { mutation, config, author }: ReadyMutation,
  record: RecordWrite | undefined,
): Promise<RecordWrite | undefined> {
  if (!record) throw new Error("a commit without a record can't have moved");
  const { entity, serverId } = record;
  const stored = await whileLeased(slice, () => slice.store.readRecord({ entity, serverId }));
  await ensureLease(slice);
  const answer = await slice.upstream.read({
    entity,
    id: serverId,
    signal: slice.signal,
    actor: author.userId,
    requestId: author.requestId,
  });
  if (answer && answer.data === undefined) throw new Error(`a record of ${mutation.entity} can't be read`);
  const data = answer?.data ?? null;
  return {
    ...record,
    begunAt: stored?.feedPosition ?? 0,
    data,
    upstreamVersion: answer?.version ?? null,
    scopes: data === null ? (stored?.scopes ?? record.scopes) : scopesOf(config.scopes, data),
    ...(stored && { changedBase: null }),
    before: stored?.data ?? null,
    ...(record.mutation && { mutation: { ...record.mutation, isCrossed: true } }),
  };
}

/** Lets the lane pass a mutation. Undefined when its record has moved: nothing was written then. */
async function tryPass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery" | "record" | "mapping" | "follow">>,
  { seq }: Place,
  isLast: boolean,
): Promise<Step | undefined> {
  const result = await commitSlice(slice, {
    ...commit,
    position: Math.max(slice.position, seq),
    failures: 0,
    ...(isLast && { release: givenBack(slice, "done") }),
  });
  return result.kind === "moved" ? undefined : { kind: "passed", dueInMs: result.dueInMs };
}

/** A lane with more to do is due at once. */
function givenBack({ hasMore, commands }: Slice, release: Release | undefined): Release | undefined {
  const waits = release === "done" || release === "stuck";
  return waits && (hasMore || commands.length > 0) ? { dueInMs: 0 } : release;
}

/** Lets the lane pass a mutation without writing a record. */
export async function pass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery" | "follow">>,
  place: Place,
  isLast: boolean,
): Promise<Step> {
  const step = await tryPass(slice, commit, place, isLast);
  if (!step) throw new Error("a commit without a record has moved");
  return step;
}

export function toOutcome(
  { mutationId }: Place,
  status: Outcome["status"],
  fault: StoredProblem,
): { outcome: Outcome } {
  return { outcome: { mutationId, status, isNew: true, problem: fault } };
}

/** Removes what was recorded of a mutation on its way. */
export function closing({ recorded, claim }: Slice, { mutationId }: Place): SettledDelivery | undefined {
  return recorded.has(mutationId) ? { settled: mutationId, upstreamId: claim.upstreamId } : undefined;
}

export interface Failed {
  error: UpstreamError | undefined;
  history: History | undefined;
}

const unsent: Failed = { error: undefined, history: undefined };

/** Takes a mutation out of the flow until a person decides. What depends on it is held, the rest goes on. */
export async function park(
  slice: Slice,
  place: Place,
  failed: Failed & { problem: StoredProblem },
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  slice.log.error({ mutationId: place.mutationId, problem: failed.problem.code }, "a mutation was parked");
  slice.blocked.push(place);
  const commit = {
    ...toOutcome(place, "parked", failed.problem),
    delivery: {
      ...toDelivery(slice, place, failed, delivery),
      ...sent(failed.history),
      state: "parked" as const,
      problem: failed.problem,
    },
  };
  if (slice.upstream.config.onPark === "hold-dependents") return await pass(slice, commit, place, isLast);
  return await stop(slice, { ...commit, release: "stuck" });
}

/** Keeps a mutation back behind the parked one that it depends on, and lets the lane go on. */
export async function hold(
  slice: Slice,
  place: Place,
  blockedBy: string,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  slice.blocked.push(place);
  if (delivery?.state === "held" && delivery.blockedBy === blockedBy && !slice.command) {
    return { kind: "skipped", dueInMs: undefined };
  }
  const row = toDelivery(slice, place, unsent, delivery);
  return await pass(slice, { delivery: { ...row, state: "held", blockedBy } }, place, isLast);
}

const waitCapMs = 30_000;

/**
 * Leaves the mutation at the head until another lane's mutation has ended. That lane's commit makes this one due; in
 * case that word is lost, it also looks for itself.
 */
export async function waitFor(
  slice: Slice,
  place: Place,
  blockedBy: string,
  delivery: OpenDelivery | undefined,
): Promise<Step> {
  const { baseMs, capMs } = slice.upstream.config.retry;
  const failures = slice.failures + 1;
  const dueInMs = backoffMs(failures, { baseMs, capMs: Math.min(capMs, waitCapMs) });
  const row = toDelivery(slice, place, unsent, delivery);
  return await stop(slice, {
    failures,
    // A shadow waits for a record, not for a mutation.
    release: isShadow(slice) ? { dueInMs } : { dueInMs, waitsFor: blockedBy },
    delivery: { ...row, state: "waiting", blockedBy },
  });
}

export async function retryLater(
  slice: Slice,
  place: Place,
  failed: Failed & { afterMs: number | undefined },
  delivery: OpenDelivery | undefined,
): Promise<Step> {
  const { error, history } = failed;
  const { status, certainty, message } = error ?? {};
  const detail = message ?? "It is not yet known whether the change took effect.";
  const row: DeliveryWrite = {
    ...toDelivery(slice, place, failed, delivery),
    state: "retrying",
    problem: problem("upstream-unavailable", detail),
  };
  if (error instanceof BreakerOpen) {
    // Nothing was tried. What is written down of it otherwise must not look as if it had been.
    const isKnown = history?.possiblySent || slice.recorded.has(place.mutationId);
    const attempts = delivery?.attempts ?? 0;
    return await stop(slice, { release: "aside", ...(isKnown && { delivery: { ...row, attempts } }) });
  }
  const failures = slice.failures + 1;
  const dueInMs = backoffMs(failures, slice.upstream.config.retry, { retryAfterMs: failed.afterMs });
  slice.log.warn(
    { mutationId: place.mutationId, failures, dueInMs, status, certainty, reason: message },
    "a mutation is tried again later",
  );
  return await stop(slice, { failures, release: { dueInMs }, delivery: row });
}

/** Gives the lane back with the mutation still at its head. */
export async function stop(
  slice: Slice,
  commit: Pick<LaneCommit, "release"> & Partial<Pick<LaneCommit, "failures" | "outcome" | "delivery">>,
): Promise<Step> {
  const { position, failures } = slice;
  const release = givenBack(slice, commit.release);
  const result = await commitSlice(slice, { position, failures, ...commit, release });
  return { kind: "stopped", dueInMs: result.kind === "done" ? result.dueInMs : undefined };
}

function toDelivery(
  { claim, attempt }: Slice,
  place: Place,
  { error, history }: Failed,
  delivery: OpenDelivery | undefined,
): DeliveryWrite {
  return {
    ...place,
    upstreamId: claim.upstreamId,
    clientId: claim.clientId,
    state: "retrying",
    blockedBy: null,
    // What only a recovery says is found out anew at each try.
    ...sent(history?.isAssumed ? undefined : history),
    attempts: (delivery?.attempts ?? 0) + 1,
    isReset: delivery?.isReset,
    problem: null,
    evidence: error ? { status: error.status ?? null, excerpt: attempt?.excerpt ?? null } : null,
  };
}

function sent(
  history: History | undefined,
): Pick<DeliveryWrite, "possiblySent" | "firstSentAt" | "lastSentAt"> {
  if (!history?.possiblySent) return { possiblySent: false, firstSentAt: null, lastSentAt: null };
  const { firstSentAt, lastSentAt } = history;
  return { possiblySent: true, firstSentAt: firstSentAt.getTime() > 0 ? firstSentAt : null, lastSentAt };
}
