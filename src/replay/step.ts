import { UpstreamError } from "../upstream/connector.ts";
import { startAttempt, type Attempt } from "./attempt-under-way.ts";
import { judgeChange, judgeCreate, type Judges } from "./judge.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import type { ReadyMutation } from "./prepare.ts";
import { keepAttempt, LaneLost, type Slice } from "./slice.ts";
import { replayChange } from "./step-change.ts";
import { replayCreate } from "./step-create.ts";
import { dispositionOf, toFailure, type Verdict } from "./verdict.ts";

const rules: Judges = { create: judgeCreate, change: judgeChange };

/**
 * Judges a prepared mutation and takes it to the upstream. What is kept of the attempt goes with the slice's next commit.
 *
 * @param judges by default the tenant's rules, which are for what clients ask of the primary.
 * @throws {LaneLost}, or what nobody foresaw.
 */
export async function replayOne(
  slice: Slice,
  ready: ReadyMutation,
  delivery: OpenDelivery | undefined,
  judges: Judges = rules,
): Promise<Verdict> {
  const attempt = startAttempt(slice, ready, delivery);
  try {
    const verdict = await tryOne(slice, ready, attempt, judges);
    // What waits was not tried.
    if (verdict.kind !== "busy") slice.attempt = attempt.watch.toAttempt(dispositionOf(verdict, attempt));
    return verdict;
  } catch (error) {
    const disposition = error instanceof LaneLost ? "stale" : "unclear";
    if (attempt.watch.hasSent()) await keepAttempt(slice, attempt.watch.toAttempt(disposition));
    throw error;
  }
}

async function tryOne(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  try {
    return ready.mutation.op === "create"
      ? await replayCreate(slice, ready, attempt, judges)
      : await replayChange(slice, ready, attempt, judges);
  } catch (error) {
    if (error instanceof UpstreamError) attempt.watch.failed(error);
    return toFailure(slice, ready, error, attempt);
  }
}
