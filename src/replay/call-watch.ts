import type { AttemptDisposition } from "../platform/schema.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { withoutValues } from "../upstream/redact.ts";
import type { AttemptWrite } from "./attempt.ts";
import type { ReadyMutation } from "./prepare.ts";
import { assertMayStart, databaseNow, type Slice } from "./slice.ts";

/** Watches the calls of one attempt at a mutation, one after the other, for what is kept of it. */
export interface CallWatch {
  /** What every call of the attempt carries. @throws when a call may not start any more. */
  mayStart: () => void;
  onStatus: (status: number) => void;
  /** Makes a call that may change something. */
  changing: <T>(call: () => Promise<T>) => Promise<T>;
  /** A call failed, and the attempt with it. */
  failed: (error: UpstreamError) => void;
  hasSent: () => boolean;
  toAttempt: (disposition: AttemptDisposition) => AttemptWrite;
}

export function watchCalls(slice: Slice, { mutation, author, data }: ReadyMutation): CallWatch {
  let begunAt = databaseNow(slice);
  let startedAt: number | undefined;
  let isChanging = false;
  let sent = false;
  let status: number | undefined;
  let failure: UpstreamError | undefined;

  return {
    mayStart() {
      assertMayStart(slice);
      if (startedAt === undefined) {
        startedAt = performance.now();
        begunAt = databaseNow(slice);
      }
      sent ||= isChanging;
    },
    onStatus(answered) {
      // What a change was answered with says more than what was read before or after it.
      if (isChanging || !sent) status = answered;
    },
    async changing(call) {
      isChanging = true;
      try {
        return await call();
      } catch (error) {
        if (error instanceof UpstreamError) failure = error;
        throw error;
      } finally {
        isChanging = false;
      }
    },
    failed: (error) => void (failure = error),
    hasSent: () => sent,
    toAttempt(disposition) {
      const said = disposition === "applied" ? undefined : failure?.excerpt;
      return {
        upstreamId: slice.claim.upstreamId,
        mutationId: mutation.id,
        epoch: slice.claim.epoch,
        begunAt,
        durationMs: startedAt === undefined ? 0 : Math.round(performance.now() - startedAt),
        disposition,
        sent,
        status: (disposition === "applied" ? undefined : failure?.status) ?? status ?? null,
        excerpt: said ? withoutValues(said, data) : null,
        requestId: author.requestId,
      };
    },
  };
}
