import type { StoredProblem } from "../platform/schema.ts";
import { BreakerOpen, UpstreamError } from "../upstream/connector.ts";
import { backoffMs } from "./backoff.ts";
import type { DeliveryWrite } from "./delivery.ts";
import type { History } from "./effect.ts";
import { pass, stop, toOutcome, type Place, type Step } from "./leave.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import { problem } from "./prepare.ts";
import { isShadow, type Slice } from "./slice.ts";

/** What came of the last try, and what is known of the calls for the mutation; undefined where there was none. */
export interface Failed {
  error: UpstreamError | undefined;
  history: History | undefined;
}

/** What has to wait was not sent, whoever had the lane before; unless there is an intent. */
function onItsWay(delivery: OpenDelivery | undefined): OpenDelivery | undefined {
  return delivery?.state === "sending" ? delivery : undefined;
}

/** Nothing was tried now; what was before is not forgotten. */
export function untried(delivery: OpenDelivery | undefined): Failed {
  if (!delivery?.possiblySent) return { error: undefined, history: undefined };
  const { possiblySent, isAssumed, lastSentAt } = delivery;
  const firstSentAt = delivery.firstSentAt ?? new Date(0);
  return {
    error: undefined,
    history: { possiblySent, isAssumed, firstSentAt, lastSentAt: lastSentAt ?? firstSentAt },
  };
}

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
  const row = toDelivery(slice, place, untried(onItsWay(delivery)), delivery);
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
  const row = toDelivery(slice, place, untried(onItsWay(delivery)), delivery);
  return await waitBehind(slice, blockedBy, row);
}

/** Leaves the mutation at the head until the mutation of another lane that has the record in hand has ended. */
export async function waitForRecord(
  slice: Slice,
  place: Place,
  blockedBy: string,
  delivery: OpenDelivery | undefined,
): Promise<Step> {
  // It may have been sent before: that it has to wait here says nothing about it.
  return await waitBehind(slice, blockedBy, toDelivery(slice, place, untried(delivery), delivery));
}

async function waitBehind(slice: Slice, blockedBy: string, row: DeliveryWrite): Promise<Step> {
  const { baseMs, capMs } = slice.upstream.config.retry;
  const failures = slice.failures + 1;
  const dueInMs = backoffMs(failures, { baseMs, capMs: Math.min(capMs, waitCapMs) });
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
