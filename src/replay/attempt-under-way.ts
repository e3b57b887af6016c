import { toTempId } from "../platform/uuid.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import { watchCalls, type CallWatch } from "./call-watch.ts";
import type { EffectContext, History } from "./effect.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import type { ReadyMutation } from "./prepare.ts";
import { ownLater } from "./recovery.ts";
import { databaseNow, type Slice } from "./slice.ts";

/** One try at a mutation: what its calls are told, and what is known of them so far. */
export interface Attempt {
  watch: CallWatch;
  context: Omit<EffectContext, "whole" | "id" | "version" | "before">;
  delivery: OpenDelivery | undefined;
  /** When the first call of this attempt began that took effect, or may have. */
  changedAt: Date | undefined;
  /** The change is made on what others have changed since: the client's own edits were interrupted. */
  isOnOthers: boolean;
}

export function startAttempt(
  slice: Slice,
  ready: ReadyMutation,
  delivery: OpenDelivery | undefined,
): Attempt {
  const { mutation, author, data, tempId } = ready;
  const now = databaseNow(slice);
  const watch = watchCalls(slice, ready);
  const attempt: Attempt = {
    watch,
    delivery,
    changedAt: undefined,
    isOnOthers: false,
    context: {
      upstream: slice.upstream,
      entity: mutation.entity,
      op: mutation.op,
      data,
      dataLater: delivery?.isAssumed ? ownLater(slice, ready) : [],
      tempId: tempId === undefined ? undefined : toTempId(tempId),
      objection: () => undefined,
      foundDone: () => undefined,
      readsBack: false,
      history: {
        possiblySent: delivery?.possiblySent ?? false,
        isAssumed: delivery?.isAssumed ?? false,
        firstSentAt: delivery?.firstSentAt ?? now,
        lastSentAt: delivery?.lastSentAt ?? now,
      },
      nowMs: now.getTime(),
      call: {
        mayStart: watch.mayStart,
        onStatus: watch.onStatus,
        signal: slice.signal,
        actor: author.userId || undefined,
        requestId: author.requestId || undefined,
        idempotencyKey: ready.idempotencyKey ?? mutation.id,
      },
      change: (call) => noted(slice, attempt, call),
    },
  };
  return attempt;
}

/** A call that was refused, or not sent, has changed nothing. Every other one has, or may have. */
async function noted<T>(slice: Slice, attempt: Attempt, call: () => Promise<T>): Promise<T> {
  const before = attempt.changedAt;
  attempt.changedAt ??= databaseNow(slice);
  try {
    return await attempt.watch.changing(call);
  } catch (error) {
    if (isUnchanged(error)) attempt.changedAt = before;
    throw error;
  }
}

function isUnchanged(error: unknown): boolean {
  return error instanceof MappingError || (error instanceof UpstreamError && error.certainty !== "ambiguous");
}

/** What is known of the mutation's calls after this attempt. */
export function historyAfter(slice: Slice, { context: { history }, changedAt }: Attempt): History {
  if (!changedAt) return history;
  return {
    possiblySent: true,
    isAssumed: false,
    firstSentAt: history.possiblySent ? history.firstSentAt : changedAt,
    lastSentAt: databaseNow(slice),
  };
}
