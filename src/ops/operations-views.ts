import type { Problem } from "../http/problem.ts";
import { problemOf } from "../inbox/result-view.ts";
import type { StoredProblem } from "../platform/schema.ts";
import type { MutationFile } from "./mutation-file.ts";
import type { ParkedMutation } from "./parked.ts";

export function toView({ problem, since, op, ...parked }: ParkedMutation) {
  return {
    ...parked,
    op: toOp(op),
    state: "parked" as const,
    since: since.toISOString(),
    ...withProblem(problem),
  };
}

export function withProblem(problem: StoredProblem | null): { problem?: Problem } {
  return problem ? { problem: problemOf(problem) } : {};
}

export function toOp(op: string | null): "create" | "update" | "delete" | null {
  return op === "create" || op === "update" || op === "delete" ? op : null;
}

export const timeOrNull = (time: Date | null): string | null => time?.toISOString() ?? null;

export function toFileView(id: string, file: MutationFile) {
  const { key, delivery, attempts, commands } = file;
  return {
    id,
    clientId: key.client_id,
    laneId: key.client_id,
    seq: Number(key.seq),
    entity: key.entity,
    status: key.status ?? (delivery?.state === "parked" ? ("parked" as const) : ("pending" as const)),
    recordId: key.record_id,
    version: key.version,
    ...withProblem(key.problem ?? delivery?.problem ?? null),
    acceptedAt: key.accepted_at.toISOString(),
    settledAt: timeOrNull(key.settled_at),
    requestId: key.request_id,
    payloadPruned: key.is_pruned,
    ...(delivery && { delivery: toDeliveryView(delivery) }),
    attempts: attempts.map(toAttemptView),
    attemptsPrunedUntil: timeOrNull(file.attemptsGoneUntil),
    commands: commands.map(toCommandView),
  };
}

function toDeliveryView(delivery: NonNullable<MutationFile["delivery"]>) {
  return {
    state: delivery.state,
    op: toOp(delivery.op),
    since: delivery.updated_at.toISOString(),
    blockedBy: delivery.blocked_by,
    possiblySent: delivery.possibly_sent,
    firstSentAt: timeOrNull(delivery.first_sent_at),
    lastSentAt: timeOrNull(delivery.last_sent_at),
    ...withProblem(delivery.problem),
  };
}

export function toAttemptView(attempt: MutationFile["attempts"][number]) {
  return {
    upstream: attempt.upstream_id,
    begunAt: attempt.begun_at.toISOString(),
    durationMs: attempt.duration_ms,
    disposition: attempt.disposition,
    sent: attempt.sent,
    status: attempt.http_status,
    recordId: attempt.record_id,
    epoch: Number(attempt.epoch),
    worker: attempt.worker,
    requestId: attempt.request_id,
    answer: attempt.answer,
  };
}

export function toCommandView(command: MutationFile["commands"][number]) {
  return {
    id: command.command_id,
    command: command.command,
    recordId: command.record_id,
    reason: command.reason,
    givenBy: command.given_by,
    givenAt: command.given_at.toISOString(),
    doneAt: timeOrNull(command.done_at),
    result: command.result,
  };
}
