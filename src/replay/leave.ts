import type { Operation } from "../inbox/mutation.ts";
import type { StoredProblem } from "../platform/schema.ts";
import type { LaneCommit } from "./commit.ts";
import type { SettledDelivery } from "./delivery.ts";
import type { Release } from "./move-lanes.ts";
import type { Outcome } from "./outcome.ts";
import type { ReadyMutation } from "./prepare.ts";
import { commitSlice, type Slice } from "./slice.ts";

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

/** Lets the lane pass a mutation. Undefined when its record has moved: nothing was written then. */
export async function tryPass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery" | "record" | "mapping" | "follow" | "commands">>,
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

/** Lets the lane pass a mutation without writing a record. */
export async function pass(
  slice: Slice,
  commit: Partial<Pick<LaneCommit, "outcome" | "delivery" | "follow" | "commands">>,
  place: Place,
  isLast: boolean,
): Promise<Step> {
  const step = await tryPass(slice, commit, place, isLast);
  if (!step) throw new Error("a commit without a record has moved");
  return step;
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

/** A lane with more to do is due at once. */
function givenBack({ hasMore, commands }: Slice, release: Release | undefined): Release | undefined {
  const waits = release === "done" || release === "stuck";
  return waits && (hasMore || commands.length > 0) ? { dueInMs: 0 } : release;
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
