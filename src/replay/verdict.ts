import type { RecordWrite } from "../change-feed/write.ts";
import type { AttemptDisposition, StoredProblem } from "../platform/schema.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import { failingMapping } from "./failing-mapping.ts";
import { historyAfter, type Attempt } from "./attempt-under-way.ts";
import type { Effect, History } from "./effect.ts";
import type { Target } from "./judge.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { toChanged, toCurrent } from "./record-after.ts";
import type { Slice } from "./slice.ts";

/** What one mutation comes to at the upstream, before it is written down. */
export type Verdict =
  | {
      kind: "applied";
      serverId: string;
      record: RecordWrite | undefined;
      version: number | undefined;
      history: History;
    }
  | {
      kind: "conflict";
      serverId: string | undefined;
      record: RecordWrite | undefined;
      version: number | undefined;
      history: History;
    }
  | { kind: "rejected"; problem: StoredProblem }
  /** Another lane has the record in hand, for a mutation. */
  | { kind: "busy"; blockedBy: string }
  | { kind: "parked"; problem: StoredProblem; history: History; error: UpstreamError | undefined }
  | { kind: "retry"; error: UpstreamError | undefined; history: History; afterMs: number | undefined };

/** What the upstream did about it. */
export function toVerdict(
  slice: Slice,
  ready: ReadyMutation,
  effect: Effect,
  target: Target | undefined,
  attempt: Attempt,
): Verdict {
  const history = historyAfter(slice, attempt);
  switch (effect.kind) {
    case "applied": {
      const isCrossed = attempt.context.history.possiblySent;
      const { isOnOthers } = attempt;
      const changed = toChanged(slice, ready, target, { answer: effect.answer, isCrossed, isOnOthers });
      return { ...changed, kind: "applied", serverId: ready.serverId ?? "", history };
    }
    case "conflict":
      return { ...toCurrent(ready, target, effect), kind: "conflict", serverId: ready.serverId, history };
    case "rejected":
      return { kind: "rejected", problem: effect.problem };
    case "unclear":
      return { kind: "parked", problem: unclear(effect.why), history, error: undefined };
    case "wait":
      return { kind: "retry", error: undefined, afterMs: effect.forMs, history };
  }
}

/** What an attempt comes to that failed. @throws what nobody foresaw, again. */
export function toFailure(slice: Slice, ready: ReadyMutation, error: unknown, attempt: Attempt): Verdict {
  const history = historyAfter(slice, attempt);
  if (error instanceof MappingError) {
    const { author, recordKey } = ready;
    const failing = failingMapping(slice, error, { userId: author.userId || recordKey, recordKey });
    slice.events.failed(failing ? "retry" : "park");
    if (failing) return { kind: "retry", error: failing, history, afterMs: undefined };
    return { kind: "parked", problem: unmappable(error), history, error: undefined };
  }
  if (!(error instanceof UpstreamError)) throw error;
  slice.events.failed(error.disposition);
  const { mutation, config } = ready;
  if (attempt.changedAt && config[mutation.op].class === "opaque" && error.certainty === "ambiguous") {
    // What is wrong there would park one mutation after another.
    slice.upstream.trip();
    return { kind: "parked", problem: unclear(error.message), history, error };
  }
  if (error.systemic || error.disposition === "retry") {
    return { kind: "retry", error, history, afterMs: error.retryAfterMs };
  }
  const answer = error.status === undefined ? "" : ` ${error.status}`;
  if (error.disposition === "reject" && !attempt.changedAt) {
    const detail = `The upstream refused the data${answer}.`;
    return { kind: "rejected", problem: problem("upstream-rejected", detail) };
  }
  const detail = `The upstream gave an unexpected answer${answer}.`;
  return { kind: "parked", problem: problem("upstream-unexpected", detail), history, error };
}

/** How the attempt is kept. */
export function dispositionOf(verdict: Verdict, { changedAt }: Attempt): AttemptDisposition {
  switch (verdict.kind) {
    case "applied":
    case "conflict":
      return verdict.kind;
    case "rejected":
      return "reject";
    case "parked":
      return verdict.problem.code === "upstream-unclear" ? "unclear" : "park";
    case "busy":
      return "retry";
    case "retry":
      return changedAt ? "unclear" : "retry";
  }
}

function unclear(why: string): StoredProblem {
  return problem("upstream-unclear", `It is not known whether the change took effect: ${why}.`);
}

/** Names the mapping and where in it; its message holds nothing of the data. */
export function unmappable({ message }: MappingError): StoredProblem {
  return problem("upstream-unexpected", `A mapping can't take the data: ${message}.`);
}
