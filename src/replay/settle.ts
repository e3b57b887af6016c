import type { RecordWrite } from "../change-feed/write.ts";
import { TempIdTaken, type Mapping } from "../id-map/id-map.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { scopesOf } from "../records/scopes.ts";
import { backoffMs } from "./backoff.ts";
import type { LaneCommit, Outcome } from "./commit.ts";
import type { DeliveryWrite } from "./delivery.ts";
import type { OpenDelivery } from "./lane.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { commitSlice, ensureLease, type Slice } from "./slice.ts";
import type { Verdict } from "./step.ts";

/** How a mutation leaves the slice: passed by the lane, or still at its head with the lane given back. */
export type Step = { kind: "passed"; logGoesOn: boolean } | { kind: "stopped"; dueInMs: number | undefined };

/** What a mutation is called among those that do not go straight through. */
export interface Place {
  mutationId: string;
  seq: number;
  recordKey: string;
  refersTo: string[];
}

export function placeOf({ mutation, recordKey, refersTo }: ReadyMutation): Place {
  return { mutationId: mutation.id, seq: mutation.seq, recordKey, refersTo };
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
        { ...toOutcome(place, "rejected", verdict.problem), delivery: closing(delivery) },
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
    delivery: closing(delivery),
    mapping: mappingOf(slice, ready, verdict),
  };
  try {
    let record = verdict.record;
    for (;;) {
      const step = await tryPass(slice, { ...commit, record }, place, isLast);
      if (step) return step;
      record = await readAgain(slice, ready, record);
    }
  } catch (error) {
    if (error instanceof TempIdTaken) return await park(slice, place, doubled, delivery, isLast);
    if (!(error instanceof UpstreamError)) throw error;
    // The effect took place, but the record can't be read at the moment: it is resolved like any unclear call.
    return await retryLater(
      slice,
      place,
      { error, possiblySent: true, afterMs: error.retryAfterMs },
      delivery,
    );
  }
}

const doubled = {
  problem: problem("temp-id-in-use", "Two creates of this temp ID took effect at the same moment."),
  possiblySent: true,
  error: undefined,
};

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
  const stored = await slice.store.readRecord({ entity, serverId });
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
  };
}

/** Lets the lane pass a mutation. Undefined when its record has moved: nothing was written then. */
async function tryPass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery" | "record" | "mapping">>,
  { seq }: Place,
  isLast: boolean,
): Promise<Step | undefined> {
  const result = await commitSlice(slice, {
    ...commit,
    position: seq,
    failures: 0,
    ...(isLast && { release: "done" }),
  });
  return result.kind === "moved" ? undefined : { kind: "passed", logGoesOn: result.logGoesOn };
}

/** Lets the lane pass a mutation without writing a record. */
export async function pass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery">>,
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

export function closing(delivery: OpenDelivery | undefined): { settled: string } | undefined {
  return delivery && { settled: delivery.mutationId };
}

type Failed = { error: UpstreamError | undefined; possiblySent: boolean };

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
      state: "parked" as const,
      problem: failed.problem,
    },
  };
  if (slice.upstream.config.onPark === "hold-dependents") return await pass(slice, commit, place, isLast);
  await commitSlice(slice, {
    ...commit,
    position: slice.position,
    failures: slice.failures,
    release: "stuck",
  });
  return { kind: "stopped", dueInMs: undefined };
}

/** Keeps a mutation back behind the parked one that it depends on, and lets the lane go on. */
export async function hold(slice: Slice, place: Place, blockedBy: string, isLast: boolean): Promise<Step> {
  slice.blocked.push(place);
  const row = toDelivery(slice, place, { error: undefined, possiblySent: false }, undefined);
  return await pass(slice, { delivery: { ...row, state: "held", blockedBy } }, place, isLast);
}

const waitCapMs = 30_000;

/** Leaves the mutation at the head until another lane's create is done. That lane's commit also wakes this one. */
export async function waitFor(slice: Slice, place: Place, blockedBy: string): Promise<Step> {
  const { baseMs, capMs } = slice.upstream.config.retry;
  const failures = slice.failures + 1;
  const dueInMs = backoffMs(failures, { baseMs, capMs: Math.min(capMs, waitCapMs) });
  const row = toDelivery(slice, place, { error: undefined, possiblySent: false }, undefined);
  await commitSlice(slice, {
    position: slice.position,
    failures,
    release: { dueInMs },
    delivery: { ...row, state: "waiting", blockedBy },
  });
  return { kind: "stopped", dueInMs };
}

async function retryLater(
  slice: Slice,
  place: Place,
  failed: Failed & { afterMs: number | undefined },
  delivery: OpenDelivery | undefined,
): Promise<Step> {
  const failures = slice.failures + 1;
  const dueInMs = backoffMs(failures, slice.upstream.config.retry, { retryAfterMs: failed.afterMs });
  const { error } = failed;
  slice.log.warn(
    {
      mutationId: place.mutationId,
      failures,
      dueInMs,
      status: error?.status,
      certainty: error?.certainty,
      error: error?.message,
    },
    "a mutation is tried again later",
  );
  await commitSlice(slice, {
    position: slice.position,
    failures,
    release: { dueInMs },
    delivery: {
      ...toDelivery(slice, place, failed, delivery),
      state: "retrying",
      problem: problem(
        "upstream-unavailable",
        error?.message ?? "It is not yet known whether the change took effect.",
      ),
    },
  });
  return { kind: "stopped", dueInMs };
}

function toDelivery(
  { claim }: Slice,
  place: Place,
  { error, possiblySent }: Failed,
  delivery: OpenDelivery | undefined,
): DeliveryWrite {
  return {
    ...place,
    upstreamId: claim.upstreamId,
    clientId: claim.clientId,
    state: "retrying",
    blockedBy: null,
    possiblySent,
    sentAt: sentAt(error, possiblySent, delivery),
    attempts: (delivery?.attempts ?? 0) + 1,
    problem: null,
    evidence: error ? { status: error.status ?? null, excerpt: error.excerpt ?? null } : null,
  };
}

/** When the last call that may have taken effect began, at the latest; null when an earlier write says it already. */
function sentAt(
  error: UpstreamError | undefined,
  possiblySent: boolean,
  delivery: OpenDelivery | undefined,
): Date | null {
  if (!possiblySent) return null;
  return error?.certainty === "ambiguous" || !delivery?.lastSentAt ? new Date() : null;
}
