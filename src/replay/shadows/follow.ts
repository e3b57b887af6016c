import type { UpstreamConfig } from "../../platform/config/schema.ts";
import { released } from "../decide.ts";
import { beginTurn, deliveryOf, settleUnsent, stayParked, type ReplayEntry } from "../drain.ts";
import type { Judges } from "../judge.ts";
import { park, retryLater } from "../keep-back.ts";
import { closing, pass, placeOf, type Step } from "../leave.ts";
import type { OpenDelivery } from "../open-delivery.ts";
import { problem } from "../prepare.ts";
import { faultOf } from "../settle.ts";
import type { Slice } from "../slice.ts";
import { replayOne } from "../step.ts";
import type { Verdict } from "../verdict.ts";
import { decideFollowed } from "./decide-followed.ts";
import type { FollowedEntry } from "./log.ts";
import { prepareFollowed, type ReadyChange } from "./prepare-followed.ts";

/**
 * Carries what the primary took to a shadow, one entry of the log at a time. What the shadow refuses, and what is unclear,
 * is parked there for a person; later changes of the same record are held, and the rest goes on. What a person decides
 * comes before the log, and what was held behind it follows in order.
 */
export function follower(primary: UpstreamConfig): ReplayEntry {
  return async (slice, entry, isLast) => {
    if (!("change" in entry)) throw new Error("a shadow's lane has read a client's log");
    const { mutation } = entry;
    beginTurn(slice, mutation);
    const known = slice.claim.deliveries.find(({ mutationId }) => mutationId === mutation.id);
    if (slice.command && slice.command.command !== "retry") {
      const step = await decideFollowed(slice, entry, { command: slice.command, known, primary }, isLast);
      if (step) return step;
    }
    if (known?.state === "parked" && !slice.command) return await stayParked(slice, known);
    const prepared = await prepareFollowed(slice, entry, primary);
    if (prepared.kind === "nothing") return await passOver(slice, entry, isLast);
    if (prepared.kind === "ready") return await carry(slice, prepared, isLast);
    return await settleUnsent(slice, { ...mutation, op: prepared.op }, prepared, known, isLast);
  };
}

/** The shadow has it already, or is not meant to have it. */
async function passOver(slice: Slice, { mutation }: FollowedEntry, isLast: boolean): Promise<Step> {
  const place = { mutationId: mutation.id, seq: mutation.seq, recordKey: "", refersTo: [] };
  const done = slice.command && {
    commands: [{ commandId: slice.command.commandId, result: "nothing to do" }],
  };
  return await pass(slice, { delivery: closing(slice, place), ...done }, place, isLast);
}

async function carry(slice: Slice, change: ReadyChange, isLast: boolean): Promise<Step> {
  const { ready, target } = change;
  const recorded = deliveryOf(slice, ready);
  const delivery = slice.command ? released(slice, ready.mutation, recorded) : recorded;
  // The primary took it, so it is allowed; and it is made on whatever the shadow holds.
  const judges: Judges = {
    create: () => undefined,
    change: () => Promise.resolve({ kind: "allowed", target }),
  };
  const verdict = await replayOne(slice, ready, delivery, judges);
  return await settleFollowed(slice, change, verdict, delivery, isLast);
}

async function settleFollowed(
  slice: Slice,
  change: ReadyChange,
  verdict: Verdict,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(change.ready);
  switch (verdict.kind) {
    case "applied":
      return await settleApplied(slice, change, verdict, delivery, isLast);
    case "conflict": {
      const fault = problem("upstream-conflict", "The shadow's record is not what the primary's was.");
      return await park(slice, place, { ...verdict, problem: fault, error: undefined }, delivery, isLast);
    }
    case "rejected":
      return await park(slice, place, { ...verdict, history: undefined, error: undefined }, delivery, isLast);
    case "parked":
      return await park(slice, place, verdict, delivery, isLast);
    case "retry":
      return await retryLater(slice, place, verdict, delivery);
  }
}

async function settleApplied(
  slice: Slice,
  { ready, key, reached, isIncomplete }: ReadyChange,
  { serverId, record, history }: Extract<Verdict, { kind: "applied" }>,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  const follow = {
    ...key,
    upstreamId: slice.claim.upstreamId,
    ownId: serverId,
    version: record?.upstreamVersion ?? null,
    // A seed is the record as it is when it is read: what an earlier call made of it may be older.
    reached: ready.mutation.seq < 0 && delivery?.possiblySent ? 0 : reached,
    deleted: ready.mutation.op === "delete",
    isIncomplete,
  };
  const outcome = { mutationId: place.mutationId, status: "applied" as const, isNew: true };
  try {
    return await pass(slice, { outcome, delivery: closing(slice, place), follow }, place, isLast);
  } catch (error) {
    const fault = faultOf(error);
    if (!fault) throw error;
    return await park(slice, place, { problem: fault, history, error: undefined }, delivery, isLast);
  }
}
