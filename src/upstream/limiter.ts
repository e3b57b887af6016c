import { whenAborted } from "../platform/when-aborted.ts";

/** Bounds the calls to one upstream: so many in flight, so many a second, first come first served. */
export interface Limiter {
  /**
   * Waits for a place and resolves with the function that gives it back; calling that twice is harmless.
   * Rejects with the signal's reason when it is aborted before a place is free.
   */
  acquire(signal?: AbortSignal): Promise<() => void>;
  inFlight(): number;
  waiting(): number;
}

export interface LimiterOptions {
  /** Asked before each start, so that it may change. */
  inFlightMax: () => number;
  requestsPerSecond?: number | undefined;
  /** Monotonic milliseconds. */
  now?: () => number;
}

/**
 * Timers fire late. Starts that are late by no more than this are caught up; more would be a burst. So in any window
 * there are at most `(window + this) × requestsPerSecond + 1` starts.
 */
export const CATCH_UP_MS = 5;

interface Waiter {
  start: (release: () => void) => void;
}

export function createLimiter({
  inFlightMax,
  requestsPerSecond = Infinity,
  now = () => performance.now(),
}: LimiterOptions): Limiter {
  const intervalMs = 1000 / requestsPerSecond;
  const queue = new Set<Waiter>();
  let inFlight = 0;
  let dueAt = -Infinity;
  let timer: NodeJS.Timeout | undefined;

  const release = (): void => {
    inFlight--;
    startDue();
  };

  function startDue(): void {
    for (const waiter of queue) {
      if (inFlight >= inFlightMax()) return;
      const at = now();
      if (at < dueAt) return startLater(dueAt - at);
      dueAt = Math.max(dueAt, at - CATCH_UP_MS) + intervalMs;
      queue.delete(waiter);
      inFlight++;
      waiter.start(once(release));
    }
  }

  function startLater(delayMs: number): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      startDue();
    }, Math.ceil(delayMs));
  }

  return {
    acquire(signal) {
      if (signal?.aborted) return Promise.reject(signal.reason as Error);
      const { promise, resolve, reject } = Promise.withResolvers<() => void>();
      const waiter: Waiter = { start: resolve };
      queue.add(waiter);
      startDue();
      if (signal && queue.has(waiter)) {
        const callOff = whenAborted(signal, () => {
          if (queue.delete(waiter)) reject(signal.reason as Error);
        });
        waiter.start = (place) => {
          callOff();
          resolve(place);
        };
      }
      return promise;
    },
    inFlight: () => inFlight,
    waiting: () => queue.size,
  };
}

function once(work: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    work();
  };
}
