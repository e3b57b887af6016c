import type { Claim, ClaimedEntry, OpenDelivery } from "./lane.ts";
import { prepare, type Prepared } from "./prepare.ts";
import { closing, hold, park, pass, settle, toOutcome, waitFor, type Place, type Step } from "./settle.ts";
import { commitSlice, ensureLease, isLeaseTooShort, type Slice } from "./slice.ts";
import { replayOne } from "./step.ts";
import type { Mutation } from "../inbox/mutation.ts";

/** What is to be done about a lane after a slice of it: look again at once, or after a time, or wait for a wake. */
export type Next = "again" | { dueInMs: number } | "idle";

export interface SliceBounds {
  mutationsMax: number;
  timeMs: number;
  /** Asked between two mutations: whether the process wants to stop. */
  isStopping: () => boolean;
}

/**
 * Replays a claimed lane's mutations in order, one at a time, each written down before the next is begun; then gives
 * the lane back.
 *
 * @throws {LaneLost} when the lane was taken over: nothing more was sent or written. Whatever else it throws leaves the
 * lane leased; the next owner resolves its head.
 */
export async function drainSlice(
  slice: Slice,
  { mutationsMax, timeMs, isStopping }: SliceBounds,
): Promise<Next> {
  const until = performance.now() + timeMs;
  const entries = slice.claim.entries.slice(0, mutationsMax);
  for (const [index, entry] of entries.entries()) {
    if (isStopping() || performance.now() > until) return await release(slice);
    const step = await replayEntry(slice, entry, index === entries.length - 1);
    if (step.kind === "stopped") return step.dueInMs === undefined ? "idle" : { dueInMs: step.dueInMs };
    if (index === entries.length - 1) return step.logGoesOn ? "again" : "idle";
  }
  return await release(slice);
}

async function release(slice: Slice): Promise<Next> {
  const { position, failures } = slice;
  const result = await commitSlice(slice, { position, failures, release: "done" });
  return result.kind === "done" && result.logGoesOn ? "again" : "idle";
}

async function replayEntry(slice: Slice, entry: ClaimedEntry, isLast: boolean): Promise<Step> {
  if ("rejected" in entry) return await tellRejection(slice, entry.rejected, isLast);
  const { mutation, author } = entry;
  const delivery = deliveryOf(slice, mutation);
  if (delivery?.state === "parked") return await stayParked(slice);
  const prepared = await prepare(slice, mutation, author);
  if (prepared.kind !== "ready") return await settleUnsent(slice, mutation, prepared, delivery, isLast);
  for (let tries = 1; ; tries++) {
    try {
      const verdict = await replayOne(slice, prepared.ready, delivery);
      return await settle(slice, prepared.ready, verdict, delivery, isLast);
    } catch (error) {
      // Nothing was sent: the call waited for its place for longer than the lease lasted. Renewed, it may try again.
      if (!isLeaseTooShort(error) || tries === 5) throw error;
      await ensureLease(slice);
    }
  }
}

/** It was recorded at ingest; the feed tells it when the lane passes it. */
async function tellRejection(
  slice: Slice,
  { seq, id }: { seq: number; id: string },
  isLast: boolean,
): Promise<Step> {
  const place: Place = { mutationId: id, seq, recordKey: "", refersTo: [] };
  return await pass(slice, { outcome: { mutationId: id, status: "rejected", isNew: false } }, place, isLast);
}

/** The strict option of an upstream: the lane stands still until a person has decided. */
async function stayParked(slice: Slice): Promise<Step> {
  await commitSlice(slice, { position: slice.position, failures: slice.failures, release: "stuck" });
  return { kind: "stopped", dueInMs: undefined };
}

async function settleUnsent(
  slice: Slice,
  mutation: Mutation,
  prepared: Exclude<Prepared, { kind: "ready" }>,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place: Place = {
    mutationId: mutation.id,
    seq: mutation.seq,
    recordKey: mutation.recordId,
    refersTo: [],
  };
  switch (prepared.kind) {
    case "held":
      return await hold(slice, { ...place, ...prepared }, prepared.blockedBy, isLast);
    case "waiting":
      return await waitFor(slice, { ...place, ...prepared }, prepared.blockedBy);
    case "rejected":
      return await pass(
        slice,
        { ...toOutcome(place, "rejected", prepared.problem), delivery: closing(delivery) },
        place,
        isLast,
      );
    case "misfit":
      return await park(slice, place, { ...unsent, problem: prepared.problem }, delivery, isLast);
  }
}

const unsent = { possiblySent: false, error: undefined };

/**
 * What is known of earlier attempts. The head of a lane that its last owner never released may have been sent, unless
 * the upstream is one for which an intent is written down before each call, and none was.
 */
function deliveryOf({ claim, upstream }: Slice, mutation: Mutation): OpenDelivery | undefined {
  const delivery = claim.deliveries.find(({ mutationId }) => mutationId === mutation.id);
  const isOpaque = upstream.entity(mutation.entity)?.[mutation.op].class === "opaque";
  if (isOpaque)
    return delivery && { ...delivery, possiblySent: delivery.possiblySent || delivery.state === "sending" };
  const isHead = claim.entries[0] !== undefined && seqOf(claim.entries[0]) === mutation.seq;
  if (!claim.takenOver || !isHead || delivery?.possiblySent) return delivery;
  return {
    mutationId: mutation.id,
    seq: mutation.seq,
    recordKey: "",
    refersTo: [],
    blockedBy: null,
    state: "retrying",
    attempts: 0,
    firstSentAt: null,
    lastSentAt: null,
    ...delivery,
    possiblySent: true,
  };
}

function seqOf(entry: ClaimedEntry): number {
  return "rejected" in entry ? entry.rejected.seq : entry.mutation.seq;
}

/** The parked and held mutations that a slice begins with. */
export function blockedAtStart({ deliveries }: Claim): Slice["blocked"] {
  return deliveries
    .filter(({ state }) => state === "parked" || state === "held")
    .map(({ mutationId, recordKey, refersTo }) => ({ mutationId, recordKey, refersTo }));
}
