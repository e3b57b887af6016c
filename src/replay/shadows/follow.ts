import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { UpstreamError } from "../../upstream/connector.ts";
import { released } from "../decide.ts";
import { beginTurn, deliveryOf, settleUnsent, stayParked, type ReplayEntry } from "../drain.ts";
import type { Judges } from "../judge.ts";
import { park, retryLater } from "../keep-back.ts";
import { closing, pass, placeOf, type Step } from "../leave.ts";
import type { OpenDelivery } from "../open-delivery.ts";
import { problem } from "../prepare.ts";
import { faultOf } from "../settle.ts";
import { holds } from "../holds.ts";
import { keepAttempt, type Slice } from "../slice.ts";
import { replayOne } from "../step.ts";
import type { Verdict } from "../verdict.ts";
import { decideFollowed } from "./decide-followed.ts";
import type { FollowedEntry } from "./log.ts";
import { pairWithListed, type Pairing } from "./pair.ts";
import type { Partners } from "./partners.ts";
import {
  idempotencyKeyOf,
  prepareFollowed,
  type PreparedChange,
  type ReadyChange,
} from "./prepare-followed.ts";
import { findMade, unclearCreateOf } from "./unclear-create.ts";

export interface Followed {
  primary: UpstreamConfig;
  /** What the shadow held before. */
  partners: Partners;
}

/**
 * Carries what the primary took to a shadow, one entry of the log at a time. What the shadow refuses, and what is unclear,
 * is parked there for a person; later changes of the same record are held, and the rest goes on. What a person decides
 * comes before the log, and what was held behind it follows in order.
 */
export function follower(followed: Followed): ReplayEntry {
  const { primary } = followed;
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
    const prepared = await prepareOrPair(slice, entry, followed, known);
    if (prepared.kind === "nothing") return await leaveOut(slice, entry, isLast);
    if (prepared.kind === "ready") return await carry(slice, entry, prepared, isLast);
    if (prepared.kind === "failed") return await withoutLook(slice, prepared, known, isLast);
    const delivery = known?.state === "sending" ? deliveryOf(slice, entry) : known;
    return await settleUnsent(slice, { ...mutation, op: prepared.op }, prepared, delivery, isLast);
  };
}

interface Unlooked {
  kind: "failed";
  change: ReadyChange;
  error: UpstreamError;
}

/** A record that would be created may be one that the shadow held before: then it is changed. */
async function prepareOrPair(
  slice: Slice,
  entry: FollowedEntry,
  { primary, partners }: Followed,
  known: OpenDelivery | undefined,
): Promise<PreparedChange | Unlooked> {
  const change = await prepareFollowed(slice, entry, primary);
  if (change.kind !== "ready" || change.ready.mutation.op !== "create") return change;
  const { config, recordKey } = change.ready;
  // What was sent before was a create: what it came to is found out as usual, whatever a seed's record says by now.
  const wasSent = known !== undefined && (known.possiblySent || known.state === "sending");
  const pairing: Pairing = wasSent ? { kind: "none" } : await pairWithListed(slice, change, partners);
  switch (pairing.kind) {
    case "none":
      return config.create.enabled ? change : { kind: "nothing" };
    case "paired":
      return await prepareFollowed(slice, entry, primary);
    case "unclear":
      return { kind: "misfit", problem: pairing.problem, op: "create", recordKey, refersTo: [] };
    case "failed":
      return { ...pairing, change };
  }
}

/** Whether there is such a record could not be looked up. Nothing was sent. */
async function withoutLook(
  slice: Slice,
  { change: { ready }, error }: Unlooked,
  known: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  const failed = { error, history: undefined };
  if (error.systemic || error.disposition === "retry")
    return await retryLater(slice, place, { ...failed, afterMs: error.retryAfterMs }, known);
  const detail = "The record that it may be could not be read in the shadow.";
  return await park(
    slice,
    place,
    { ...failed, problem: problem("upstream-unexpected", detail) },
    known,
    isLast,
  );
}

/** Nothing is sent. What an earlier call may have made is taken over, for the log to go on with; or a person is asked. */
async function leaveOut(slice: Slice, entry: FollowedEntry, isLast: boolean): Promise<Step> {
  const made = await unclearCreateOf(slice, entry);
  const verdict = made && (await findMade(slice, made));
  if (!made || !verdict) return await passOver(slice, entry, isLast);
  const { ready, key, delivery } = made;
  const target = { stored: undefined, data: ready.data, upstreamVersion: null };
  const change: ReadyChange = {
    kind: "ready",
    ready,
    key,
    target,
    reached: 0,
    isIncomplete: false,
    mayBeOlder: false,
  };
  return await settleFollowed(slice, change, verdict, delivery, isLast);
}

/** The shadow has it already, or is not meant to have it. */
async function passOver(slice: Slice, { mutation }: FollowedEntry, isLast: boolean): Promise<Step> {
  const place = { mutationId: mutation.id, seq: mutation.seq, recordKey: "", refersTo: [] };
  const done = slice.command && {
    commands: [{ commandId: slice.command.commandId, result: "nothing to do" }],
  };
  return await pass(slice, { delivery: closing(slice, place), ...done }, place, isLast);
}

async function carry(
  slice: Slice,
  entry: FollowedEntry,
  change: ReadyChange,
  isLast: boolean,
): Promise<Step> {
  const { ready } = change;
  const recorded = deliveryOf(slice, ready);
  const delivery = slice.command ? released(slice, ready.mutation, recorded) : recorded;
  const verdict = await replayOne(slice, ready, delivery, judging(change));
  const rest = restOf(slice, entry, change, verdict);
  if (!rest) return await settleFollowed(slice, change, verdict, delivery, isLast);
  if (slice.attempt) await keepAttempt(slice, slice.attempt);
  const brought = await replayOne(slice, rest.ready, delivery, judging(rest));
  return await settleFollowed(slice, rest, brought, delivery, isLast);
}

/** The primary took it, so it is allowed; and it is made on whatever the shadow holds. */
function judging({ target }: ReadyChange): Judges {
  return {
    create: () => undefined,
    change: () => Promise.resolve({ kind: "allowed", target, isBased: true }),
  };
}

/** The update that is left to do when a create has found an older state of the record there. */
function restOf(
  slice: Slice,
  entry: FollowedEntry,
  change: ReadyChange,
  verdict: Verdict,
): ReadyChange | undefined {
  if (!change.mayBeOlder || verdict.kind !== "applied") return undefined;
  const { record, serverId } = verdict;
  const { ready, target } = change;
  if (!record || !ready.config.update.enabled || holds(record.data ?? undefined, ready.data))
    return undefined;
  return {
    ...change,
    target: { ...target, upstreamVersion: record.upstreamVersion },
    ready: {
      ...ready,
      mutation: { ...ready.mutation, op: "update" },
      serverId,
      idempotencyKey: idempotencyKeyOf(slice, { entry, op: "update", wasDeleted: false }),
    },
  };
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
    case "busy":
      throw new Error("no record is claimed for a shadow");
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
    mayBeListed: ready.config.match !== undefined && ready.mutation.op === "create",
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
