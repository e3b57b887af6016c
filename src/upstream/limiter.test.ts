import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { CATCH_UP_MS, createLimiter, type Limiter } from "./limiter.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

interface Run {
  /** When each call started, in the order of starting. */
  starts: { call: number; at: number }[];
  most: number;
}

/** Sends one call per duration, all asked for at once, and lets time pass until the last has ended. */
async function run(limiter: Limiter, durationsMs: number[]): Promise<Run> {
  const starts: Run["starts"] = [];
  let most = 0;
  const calls = durationsMs.map(async (durationMs, call) => {
    const release = await limiter.acquire();
    starts.push({ call, at: performance.now() });
    most = Math.max(most, limiter.inFlight());
    await new Promise((resolve) => setTimeout(resolve, durationMs));
    release();
  });
  await vi.runAllTimersAsync();
  await Promise.all(calls);
  return { starts, most };
}

const durations = fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 40 });

test("never more in flight than allowed, and first come is first served", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 6 }), durations, async (concurrency, durationsMs) => {
      const limiter = createLimiter({ inFlightMax: () => concurrency });
      const { starts, most } = await run(limiter, durationsMs);
      expect(most).toBeLessThanOrEqual(concurrency);
      expect(starts.map(({ call }) => call)).toEqual(durationsMs.map((_, call) => call));
      expect([limiter.inFlight(), limiter.waiting()]).toEqual([0, 0]);
    }),
    { numRuns: 50 },
  );
});

test("in no window are there more starts than the rate allows", async () => {
  const rate = fc.constantFrom(1, 7, 50, 333, 2000);
  await fc.assert(
    fc.asyncProperty(rate, durations, async (requestsPerSecond, durationsMs) => {
      const { starts } = await run(createLimiter({ inFlightMax: () => 10, requestsPerSecond }), durationsMs);
      for (const [first, { at: from }] of starts.entries()) {
        for (const [last, { at: to }] of starts.entries()) {
          const allowed = ((to - from + CATCH_UP_MS) * requestsPerSecond) / 1000 + 1;
          if (last >= first) expect(last - first + 1).toBeLessThanOrEqual(allowed + 1e-6);
        }
      }
    }),
    { numRuns: 50 },
  );
});

test("the rate is reached also where the interval is shorter than a timer", async () => {
  const limiter = createLimiter({ inFlightMax: () => Infinity, requestsPerSecond: 2000 });
  const { starts } = await run(
    limiter,
    Array.from({ length: 2000 }, () => 0),
  );
  expect(starts.at(-1)!.at - starts[0]!.at).toBeLessThanOrEqual(1001);
});

test("a long pause is not made up for by a burst", async () => {
  const limiter = createLimiter({ inFlightMax: () => Infinity, requestsPerSecond: 10 });
  await run(limiter, [0]);
  await vi.advanceTimersByTimeAsync(60_000);
  const { starts } = await run(limiter, [0, 0, 0]);
  expect(starts[2]!.at - starts[0]!.at).toBeGreaterThanOrEqual(200 - CATCH_UP_MS);
});

test("an aborted call leaves the queue, and the others move up", async () => {
  const limiter = createLimiter({ inFlightMax: () => 1 });
  const release = await limiter.acquire();
  const stop = new AbortController();
  const aborted = limiter.acquire(stop.signal);
  const next = limiter.acquire();
  stop.abort(new Error("no longer wanted"));
  await expect(aborted).rejects.toThrow("no longer wanted");
  release();
  release();
  await next;
  expect([limiter.inFlight(), limiter.waiting()]).toEqual([1, 0]);
  await expect(limiter.acquire(stop.signal)).rejects.toThrow("no longer wanted");
});

test("a larger allowance is used from the next release on", async () => {
  let allowance = 1;
  const limiter = createLimiter({ inFlightMax: () => allowance });
  const release = await limiter.acquire();
  const waiting = [limiter.acquire(), limiter.acquire(), limiter.acquire()];
  allowance = 3;
  release();
  await Promise.all(waiting);
  expect(limiter.inFlight()).toBe(3);
});
