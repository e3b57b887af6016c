import type { Mutation } from "../inbox/mutation.ts";
import { toTurn } from "./backlog.ts";
import type { Author } from "./blocks.ts";
import type { Claim, SentBetween } from "./claim.ts";
import { decide, released } from "./decide.ts";
import type { ClaimedEntry } from "./entries.ts";
import { hold, park, retryLater, untried, waitFor } from "./keep-back.ts";
import { closing, pass, stop, toOutcome, type Place, type Step } from "./leave.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import type { Prepared } from "./prepare.ts";
import { sentBeforeRecovery } from "./recovery.ts";
import { settle } from "./settle.ts";
import { commitSlice, databaseNow, type Slice } from "./slice.ts";
import { replayOne } from "./step.ts";
import { prepareUpcast } from "./upcast.ts";

/** What is to be done about a lane after a slice of it: look again after a time, or wait for a wake. */
export type Next = { dueInMs: number } | "idle";

/** Takes one entry of the log to the upstream and writes down what it came to. */
export type ReplayEntry<Entry = ClaimedEntry> = (
  slice: Slice,
  entry: Entry,
  isLast: boolean,
) => Promise<Step>;

export interface SliceBounds {
  /** What is done with each entry; by default what the clients of a primary asked for. */
  replay?: ReplayEntry;
  mutationsMax: number;
  timeMs: number;
  /** Asked between two mutations: whether the process wants to stop. */
  isStopping: () => boolean;
}

/**
 * Replays a claimed lane's mutations in order, one at a time, each written down before the next is begun; then gives
 * the lane back. Those that it passed before, and that can go on by now, come before its log.
 *
 * @throws {LaneLost} when the lane was taken over: nothing more was sent or written. Whatever else it throws leaves the
 * lane leased; the next owner resolves its head.
 */
export async function drainSlice(
  slice: Slice,
  { replay = replayEntry, mutationsMax, timeMs, isStopping }: SliceBounds,
): Promise<Next> {
  const until = performance.now() + timeMs;
  await finishLate(slice);
  const { entries, backlog } = await toTurn(slice, mutationsMax);
  for (const [index, entry] of entries.entries()) {
    // A head that may have been sent is resolved first: given back, nobody would know that any more.
    const isOpen = index > 0 || !slice.claim.takenOver;
    if (isOpen && (isStopping() || performance.now() > until)) {
      slice.hasMore ||= index < backlog;
      break;
    }
    const isLast = index === entries.length - 1;
    const step = await replay(slice, entry, isLast);
    if (step.kind === "stopped" || (isLast && step.kind === "passed")) return toNext(step);
  }
  return toNext(await stop(slice, { release: "done" }));
}

function toNext({ dueInMs }: Step): Next {
  return dueInMs === undefined ? "idle" : { dueInMs };
}

/** What is commanded about a mutation that has ended meanwhile comes too late. */
async function finishLate(slice: Slice): Promise<void> {
  const { position, failures } = slice;
  const late = slice.commands.filter(({ mutationId }) => !slice.recorded.has(mutationId));
  if (late.length === 0) return;
  const commands = late.map(({ commandId }) => ({ commandId, result: "refused: it had ended" }));
  await commitSlice(slice, { position, failures, commands });
  slice.commands = slice.commands.filter((command) => !late.includes(command));
}

async function replayEntry(slice: Slice, entry: ClaimedEntry, isLast: boolean): Promise<Step> {
  if ("rejected" in entry) return await tellRejection(slice, entry.rejected, isLast);
  const { mutation, author } = entry;
  beginTurn(slice, mutation);
  const delivery = deliveryOf(slice, entry);
  if (slice.command && slice.command.command !== "retry") {
    const step = await decide(slice, entry, slice.command, delivery, isLast);
    if (step) return step;
  }
  const known = slice.command ? released(slice, mutation, delivery) : delivery;
  if (known?.state === "parked") return await stayParked(slice, known);
  const prepared = await prepareUpcast(slice, mutation, author, known?.wasAllowed ?? false);
  if (prepared.kind !== "ready") return await settleUnsent(slice, mutation, prepared, known, isLast);
  const verdict = await replayOne(slice, prepared.ready, known);
  return await settle(slice, prepared.ready, verdict, known, isLast);
}

/** Nothing waits for it any more until it is known what it comes to. The first command about it is carried out with it. */
export function beginTurn(slice: Slice, { id }: Mutation): void {
  if (slice.blocked.length > 0) slice.blocked = slice.blocked.filter(({ mutationId }) => mutationId !== id);
  if (slice.commands.length === 0) return;
  slice.command = slice.commands.find(({ mutationId }) => mutationId === id);
  slice.commands = slice.commands.filter((command) => command !== slice.command);
}

/** At the head it is an upstream's strict option: the lane stands still until a person has decided. */
export async function stayParked(slice: Slice, delivery: OpenDelivery): Promise<Step> {
  if (delivery.seq > slice.position) return await stop(slice, { release: "stuck" });
  slice.blocked.push(delivery);
  return { kind: "skipped", dueInMs: undefined };
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

export async function settleUnsent(
  slice: Slice,
  { id: mutationId, seq, op }: Mutation,
  prepared: Exclude<Prepared, { kind: "ready" }>,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place: Place = { mutationId, seq, op, recordKey: "", refersTo: [], ...keysOf(prepared) };
  switch (prepared.kind) {
    case "held":
      return await hold(slice, place, prepared.blockedBy, delivery, isLast);
    case "waiting":
      return await waitFor(slice, place, prepared.blockedBy, delivery);
    case "rejected":
      return await pass(
        slice,
        { ...toOutcome(place, "rejected", prepared.problem), delivery: closing(slice, place) },
        place,
        isLast,
      );
    case "misfit": {
      const { problem, error } = prepared;
      const { history } = untried(delivery);
      if (error) return await retryLater(slice, place, { error, history, afterMs: undefined }, delivery);
      return await park(slice, place, { problem, error, history }, delivery, isLast);
    }
  }
}

function keysOf(prepared: Exclude<Prepared, { kind: "ready" }>): Partial<Place> {
  if (prepared.kind === "rejected") return {};
  const { recordKey, refersTo } = prepared;
  return { recordKey, refersTo };
}

/**
 * What is known of earlier attempts. A call whose intent was written down, and nothing after it, may have left. So may the
 * head of a lane that its last owner never released have been sent, unless the upstream is one for which an intent is
 * written down before each call, and none was. After a recovery, so may have been whatever occurred before it: neither
 * intents nor outcomes of that time are all there.
 */
export function deliveryOf(
  slice: Slice,
  entry: { mutation: Mutation; author: Author },
): OpenDelivery | undefined {
  const { claim, entries, upstream, leaseMs } = slice;
  const { mutation } = entry;
  const delivery = claim.deliveries.find(({ mutationId }) => mutationId === mutation.id);
  const forgotten = sentBeforeRecovery(entry, claim, leaseMs);
  if (forgotten) return toPossiblySent(mutation, delivery, forgotten, !delivery?.possiblySent);
  const isOpaque = upstream.entity(mutation.entity)?.[mutation.op].class === "opaque";
  if (isOpaque)
    return delivery && { ...delivery, possiblySent: delivery.possiblySent || delivery.state === "sending" };
  if (delivery?.state === "sending") {
    const now = databaseNow(slice);
    const since = delivery.firstSentAt ?? now;
    return toPossiblySent(mutation, delivery, claim.takenOver ?? { from: since, until: now }, false);
  }
  const isHead = entries[0] !== undefined && seqOf(entries[0]) === mutation.seq;
  const isBefore = claim.deliveries.some(({ seq, state }) => seq <= claim.position && state === "sending");
  if (!claim.takenOver || !isHead || isBefore) return delivery;
  return toPossiblySent(mutation, delivery, claim.takenOver, false);
}

function toPossiblySent(
  { id, seq }: Mutation,
  delivery: OpenDelivery | undefined,
  { from, until }: SentBetween,
  isAssumed: boolean,
): OpenDelivery {
  const fresh = {
    state: "retrying",
    recordKey: "",
    blockedBy: null,
    isBehindAnother: false,
    wasAllowed: false,
    attempts: 0,
  } as const;
  const { firstSentAt, lastSentAt } = delivery ?? {};
  return {
    ...(delivery ?? { ...fresh, mutationId: id, seq, refersTo: [] }),
    possiblySent: true,
    isAssumed,
    firstSentAt: firstSentAt && firstSentAt < from ? firstSentAt : from,
    lastSentAt: lastSentAt && lastSentAt > until ? lastSentAt : until,
  };
}

function seqOf(entry: ClaimedEntry): number {
  return "rejected" in entry ? entry.rejected.seq : entry.mutation.seq;
}

/** What later mutations may have to wait for: the parked ones, and all that the lane has passed without an outcome. */
export function blockedAtStart({ deliveries, position }: Claim): Slice["blocked"] {
  return deliveries
    .filter(({ state, seq }) => state === "parked" || seq <= position)
    .map(({ mutationId, seq, recordKey, refersTo }) => ({ mutationId, seq, recordKey, refersTo }));
}
