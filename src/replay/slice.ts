import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";

import { isTransient } from "../http/transient-failures.ts";
import type { TempIdState } from "../id-map/id-map.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { AttemptWrite } from "./attempt.ts";
import type { Claim } from "./claim.ts";
import type { OpenCommand } from "./command.ts";
import type { CommitResult, LaneCommit } from "./commit.ts";
import type { ClaimedEntry } from "./entries.ts";
import type { RecordClaim } from "./record-claim.ts";
import type { ReplayStore } from "./store.ts";

/** One turn at a lane: what was claimed, and what this turn has learned so far. */
export interface Slice {
  claim: Claim;
  entries: ClaimedEntry[];
  upstream: Upstream;
  store: ReplayStore;
  log: Logger;
  /** Fires when the process stops and calls must end. */
  signal: AbortSignal;
  leaseMs: number;
  events: SliceEvents;
  /** On the monotonic clock; moves with every commit and every renewal. */
  leaseUntil: number;
  /** Another owner has the lane. */
  isLost: boolean;
  /** The record that the lane has claimed for the mutation in hand. */
  recordClaim: HeldRecord | undefined;
  position: number;
  failures: number;
  /** What later mutations of the lane may have to wait for; one that has its turn is taken out. */
  blocked: Blocked[];
  /** What operators want done, as far as it was not begun. */
  commands: OpenCommand[];
  /** The command that is being carried out. */
  command: OpenCommand | undefined;
  /** There is more to do at once, whether or not the log goes on. */
  hasMore: boolean;
  /** The mutations that have a delivery row. */
  recorded: Set<string>;
  /** What came of the last attempt, until a commit has it. */
  attempt: AttemptWrite | undefined;
  /** Temp IDs that are known to be mapped; that never changes. */
  mapped: Map<string, Extract<TempIdState, { kind: "mapped" }>>;
  /** What was known of the records' temp IDs when names were first looked up. */
  foreseen: ReadonlyMap<string, TempIdState> | undefined;
}

/** A record that nobody else writes at the upstream meanwhile. */
export interface HeldRecord extends RecordClaim {
  /** On the monotonic clock; what was lost has ended. */
  leaseUntil: number;
}

/** What a slice tells about what it did, when it is done. */
export interface SliceEvents {
  /** The lane waits for the upstream to take calls again. */
  setAside: () => void;
  committed: (commit: Pick<LaneCommit, "outcome" | "record"> & { unblocked: string[] }) => void;
  /** An attempt at a mutation failed. */
  failed: (disposition: "retry" | "conflict" | "reject" | "park") => void;
}

/** A parked mutation, one held behind it, or one that was passed and has not had its turn. */
export interface Blocked {
  mutationId: string;
  seq: number;
  recordKey: string;
  refersTo: string[];
}

/** The lane is no longer ours. Nothing more may be sent or written. */
export class LaneLost extends Error {
  constructor({ laneId }: Claim) {
    super(`lane ${laneId} was taken over`);
  }
}

export function isShadow({ upstream }: Pick<Slice, "upstream">): boolean {
  return upstream.config.role === "shadow";
}

/** Now, on the database's clock: another process may go on where this one stopped, and clocks of hosts differ. */
export function databaseNow({ claim: { clock } }: Slice): Date {
  return new Date(clock.databaseMs + performance.now() - clock.monotonicMs);
}

/**
 * Writes a commit and moves the slice with it. While the database is away the answer in hand is kept, and tried again
 * for as long as the lease lasts.
 *
 * @throws {LaneLost}
 */
export async function commitSlice(
  slice: Slice,
  commit: Omit<LaneCommit, "laneId" | "clientId" | "epoch" | "from">,
): Promise<Exclude<CommitResult, { kind: "stale" }>> {
  const { laneId, clientId, epoch } = slice.claim;
  const done = slice.command && {
    commands: [{ commandId: slice.command.commandId, result: resultOf(commit) }],
  };
  const recordClaim = resultOf(commit) === sending ? undefined : slice.recordClaim;
  const { position: from, attempt } = slice;
  const whole = { laneId, clientId, epoch, from, attempt, recordClaim, ...done, ...commit };
  // Clients never see how a shadow fares.
  if (isShadow(slice)) delete whole.outcome;
  const result = await whileLeased(slice, () => slice.store.commit(whole));
  if (result.kind === "stale") throw new LaneLost(slice.claim);
  if (result.kind === "moved") return result;
  slice.attempt = undefined;
  if (recordClaim) slice.recordClaim = undefined;
  slice.leaseUntil = result.leaseUntil;
  slice.position = commit.position;
  slice.failures = commit.failures;
  const { delivery, outcome, record } = commit;
  if (delivery && "mutationId" in delivery) slice.recorded.add(delivery.mutationId);
  // That it is about to be sent is not the end of it; yet whoever takes over must not carry it out again.
  if (resultOf(commit) !== sending) slice.command = undefined;
  if (commit.release === "aside") slice.events.setAside();
  slice.events.committed({ outcome, record, unblocked: result.unblocked });
  return result;
}

const sending = "sending";

/** What a mutation came to by the command that the commit carries out. */
function resultOf({
  outcome,
  delivery,
  commands,
}: Pick<LaneCommit, "outcome" | "delivery" | "commands">): string {
  if (outcome) return outcome.status;
  return delivery && "state" in delivery ? delivery.state : (commands?.[0]?.result ?? "unchanged");
}

/** Keeps an attempt that no commit will: its lane is lost, or something broke. Evidence is worth one try. */
export async function keepAttempt({ store, log }: Slice, attempt: AttemptWrite): Promise<void> {
  try {
    await store.keepAttempt(attempt);
  } catch (error) {
    log.warn({ mutationId: attempt.mutationId, err: error }, "an attempt could not be kept");
  }
}

/** Asks the database, or tells it, again while it is away, for as long as the lease lasts. */
export async function whileLeased<T>(slice: Slice, work: () => Promise<T>): Promise<T> {
  for (let pauseMs = 50; ; pauseMs = Math.min(2 * pauseMs, 2_000)) {
    try {
      return await work();
    } catch (error) {
      if (!isTransient(error) || performance.now() + pauseMs > slice.leaseUntil) throw error;
      slice.log.warn({ err: error }, "the database did not answer; it is asked again");
      await delay(pauseMs);
    }
  }
}

/** Time between the check and the bytes leaving, and between two clocks' ticks. */
const marginMs = 500;

/**
 * Makes sure that the lease, and that of the claim on a record, outlive a call that starts now.
 * @throws {LaneLost}
 * @throws {UpstreamError} `not-sent` when another lane has taken the record over.
 */
export async function ensureLease(slice: Slice): Promise<void> {
  if (slice.isLost) throw new LaneLost(slice.claim);
  if (outlivesCall(slice)) return;
  const startedAt = performance.now();
  const ours = await slice.store.renew([slice.claim]);
  if (!ours.has(slice.claim.laneId)) throw new LaneLost(slice.claim);
  slice.leaseUntil = startedAt + slice.leaseMs;
  await ensureRecordClaim(slice);
}

async function ensureRecordClaim({ recordClaim, store, leaseMs }: Slice): Promise<void> {
  if (!recordClaim) return;
  const startedAt = performance.now();
  const ours = await store.renewRecords([recordClaim]);
  if (!ours.has(recordClaim.laneId)) {
    throw new UpstreamError("another lane has the record by now", {
      certainty: "not-sent",
      disposition: "retry",
    });
  }
  recordClaim.leaseUntil = startedAt + leaseMs;
}

/**
 * The last look before the bytes leave: a call may start only if the lease outlives its deadline. What is thrown here
 * reaches the caller as a call that was not sent.
 */
export function assertMayStart(slice: Slice): void {
  if (slice.isLost || !outlivesCall(slice)) throw new Error("the lease would not outlive the call");
}

function outlivesCall({ leaseUntil, recordClaim, upstream }: Slice): boolean {
  const until = Math.min(leaseUntil, recordClaim?.leaseUntil ?? Infinity);
  return performance.now() + upstream.config.timeoutMs + marginMs <= until;
}
