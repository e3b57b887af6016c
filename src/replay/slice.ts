import type { Logger } from "pino";

import type { TempIdState } from "../id-map/id-map.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { CommitResult, LaneCommit } from "./commit.ts";
import type { Claim } from "./lane.ts";
import type { ReplayStore } from "./store.ts";

/** One turn at a lane: what was claimed, and what this turn has learned so far. */
export interface Slice {
  claim: Claim;
  upstream: Upstream;
  store: ReplayStore;
  log: Logger;
  /** Fires when the process stops and calls must end. */
  signal: AbortSignal;
  leaseMs: number;
  /** Told of each commit, when it is done. */
  onCommit: (commit: { hasOutcome: boolean; unblocked: string[] }) => void;
  /** On the monotonic clock; moves with every commit. */
  leaseUntil: number;
  position: number;
  failures: number;
  /** What later mutations of the lane may have to wait for. */
  blocked: Blocked[];
  /** Temp IDs that are known to be mapped; that never changes. */
  mapped: Map<string, Extract<TempIdState, { kind: "mapped" }>>;
}

/** A parked mutation, or one held behind it. */
export interface Blocked {
  mutationId: string;
  recordKey: string;
  refersTo: string[];
}

/** The lane is no longer ours. Nothing more may be sent or written. */
export class LaneLost extends Error {}

/** Nothing was sent, because the lease would not have outlived the call. */
export class LeaseTooShort extends Error {}

/** Writes a commit and moves the slice with it. @throws {LaneLost} */
export async function commitSlice(
  slice: Slice,
  commit: Omit<LaneCommit, "laneId" | "clientId" | "epoch">,
): Promise<Exclude<CommitResult, { kind: "stale" }>> {
  const { laneId, clientId, epoch } = slice.claim;
  const result = await slice.store.commit({ laneId, clientId, epoch, ...commit });
  if (result.kind === "stale") throw new LaneLost(`lane ${laneId} was taken over`);
  if (result.kind === "done") {
    slice.leaseUntil = result.leaseUntil;
    slice.position = commit.position;
    slice.failures = commit.failures;
    slice.onCommit({ hasOutcome: commit.outcome !== undefined, unblocked: result.unblocked });
  }
  return result;
}

/** Time between the check and the bytes leaving, and between two clocks' ticks. */
const marginMs = 500;

/** Makes sure that the lease outlives a call that starts now. @throws {LaneLost} */
export async function ensureLease(slice: Slice): Promise<void> {
  const neededUntil = performance.now() + slice.upstream.config.timeoutMs + marginMs;
  // A call may wait for a place first; renewing at half the lease leaves it time for that.
  if (slice.leaseUntil >= neededUntil + slice.leaseMs / 4) return;
  const leaseUntil = await slice.store.renew(slice.claim);
  if (leaseUntil === undefined) throw new LaneLost(`lane ${slice.claim.laneId} was taken over`);
  slice.leaseUntil = leaseUntil;
}

/** The last look before the bytes leave: a call may start only if the lease outlives its deadline. */
export function assertMayStart(slice: Slice): void {
  if (performance.now() + slice.upstream.config.timeoutMs + marginMs > slice.leaseUntil) {
    throw new LeaseTooShort("the lease would not outlive the call");
  }
}

/** Whether a failed call was never started because of the lease. */
export function isLeaseTooShort(error: unknown): boolean {
  return (
    error instanceof LeaseTooShort || (error instanceof UpstreamError && error.cause instanceof LeaseTooShort)
  );
}
