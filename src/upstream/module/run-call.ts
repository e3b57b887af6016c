import type * as module from "../../connector-module.ts";
import { UpstreamError, type Call } from "../connector.ts";
import { unforeseen } from "./failures.ts";
import type { Trace } from "./module-http.ts";

/** What the calls of one module share. */
export interface Runner {
  /**
   * Makes one call of the module's, and ends it at its deadline, when its caller stops and when the connector is closed,
   * whether or not the module lets go.
   *
   * @throws {UpstreamError} `not-sent` when the call may not start; else what the module says, if it is a documented
   * failure; else `ambiguous`.
   */
  run<T>(call: Call, work: (own: OwnCall) => Promise<T>): Promise<T>;
  close(): void;
}

/** A call as the module gets it. */
export interface OwnCall extends module.Call {
  onStatus?: ((status: number) => void) | undefined;
  trace: Trace;
}

interface Bounds {
  timeoutMs: number;
  /** Calls that were given up and still go on, at most: a module that never ends its calls must not pile them up. */
  leftoversMax: number;
  /** Told what the module throws that is none of the documented failures. */
  onUnforeseen: (error: unknown, call: Call) => void;
}

export function createRunner({ timeoutMs, leftoversMax, onUnforeseen }: Bounds): Runner {
  const closing = new AbortController();
  let leftovers = 0;

  function assertMayBegin({ signal, mayStart }: Call): void {
    if (signal?.aborted || closing.signal.aborted) throw notSent("stopped before the call");
    if (leftovers >= leftoversMax) throw notSent(`${leftovers} calls of the connector never ended`, true);
    try {
      mayStart?.();
    } catch (cause) {
      throw notSent(`the request was not sent: ${(cause as Error).message}`);
    }
  }

  return {
    async run(call, work) {
      assertMayBegin(call);
      const limits = limited(call, { timeoutMs, closing: closing.signal });
      const own = ownCall(call, limits);
      let isOver = false;
      const working = (async () => await work(own))().finally(() => (isOver = true));
      try {
        return await Promise.race([working, limits.givenUp]);
      } catch (error) {
        if (!(error instanceof UpstreamError)) onUnforeseen(error, call);
        throw told(error, own.trace);
      } finally {
        limits.end();
        if (!isOver) {
          leftovers++;
          void working.catch(() => undefined).finally(() => leftovers--);
        }
      }
    },
    close: () => closing.abort(new Error("the connector was closed")),
  };
}

interface Limits {
  signal: AbortSignal;
  /** On the monotonic clock. */
  until: number;
  /** Rejects a turn of the event loop after the signal: who heeds that may say better what it was. */
  givenUp: Promise<never>;
  end(): void;
}

function limited(
  { signal: callers }: Call,
  { timeoutMs, closing }: { timeoutMs: number; closing: AbortSignal },
): Limits {
  const stop = new AbortController();
  const { promise: givenUp, reject } = Promise.withResolvers<never>();
  const giveUp = (why: string): void => {
    stop.abort(new Error(why));
    setImmediate(() => reject(new UpstreamError(why, { certainty: "ambiguous", disposition: "retry" })));
  };
  const onAbort = (): void => giveUp("stopped by the caller");
  callers?.addEventListener("abort", onAbort, { once: true });
  closing.addEventListener("abort", onAbort, { once: true });
  // An answer that came while this process was busy is read before the deadline counts.
  const deadline = setTimeout(
    () => setImmediate(giveUp, `no complete answer within ${timeoutMs} ms`),
    timeoutMs,
  );
  return {
    signal: stop.signal,
    until: performance.now() + timeoutMs,
    givenUp,
    end() {
      clearTimeout(deadline);
      callers?.removeEventListener("abort", onAbort);
      closing.removeEventListener("abort", onAbort);
    },
  };
}

function ownCall(call: Call, { signal, until }: Limits): OwnCall {
  const { entity, actor, requestId, onStatus } = call;
  let asked = false;
  return {
    entity,
    actor,
    requestId,
    onStatus,
    signal,
    trace: { last: false, earlier: false },
    remainingMs: () => Math.max(0, until - performance.now()),
    mayStart() {
      const facts = { certainty: asked ? "ambiguous" : "not-sent", disposition: "retry" } as const;
      if (signal.aborted || performance.now() >= until)
        throw new UpstreamError("the call's time is over", facts);
      try {
        call.mayStart?.();
      } catch (cause) {
        throw new UpstreamError((cause as Error).message, facts);
      }
      asked = true;
    },
  };
}

/** What a failure says of the call as a whole. */
function told(error: unknown, { earlier }: Trace): UpstreamError {
  const failure = error instanceof UpstreamError ? error : unforeseen(error);
  if (!earlier || failure.certainty === "ambiguous") return failure;
  const { message, disposition, systemic, status, retryAfterMs, excerpt } = failure;
  return new UpstreamError(`after a request that was taken: ${message}`, {
    certainty: "ambiguous",
    disposition: disposition === "retry" ? "retry" : "park",
    systemic,
    status,
    retryAfterMs,
    excerpt,
  });
}

function notSent(message: string, systemic = false): UpstreamError {
  return new UpstreamError(message, { certainty: "not-sent", disposition: "retry", systemic });
}
