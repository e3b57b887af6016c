import { pino } from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { aRestUpstream } from "../../test/fixtures/upstream-config.ts";
import type { Admission } from "../upstream/circuit.ts";
import { createTurns, lanesPerCall, type Turns } from "./turns.ts";

const closed: Admission = { calls: Infinity, isProbe: false };
const open: Admission = { calls: 0, isProbe: true };
const probing: Admission = { calls: 1, isProbe: true };

let admitted: Admission;
let aside: string[];
let woken: string[];
let looks: number;
let turns: Turns;
beforeEach(() => {
  vi.useFakeTimers();
  [admitted, aside, woken, looks] = [closed, [], [], 0];
  turns = createTurns({
    upstream: { config: aRestUpstream("http://127.0.0.1:9", { concurrency: 2 }), admits: () => admitted },
    takeBack: async (limit) => {
      looks++;
      return await Promise.resolve(aside.splice(0, limit));
    },
    wake: (laneId) => void woken.push(laneId),
    log: pino({ enabled: false }),
  });
});
afterEach(() => {
  turns.stop();
  vi.useRealTimers();
});

test("so many lanes are in hand as keep the calls busy, and one that leaves makes room for another", () => {
  const entered = Array.from({ length: 2 * lanesPerCall + 1 }, (_, n) => turns.enter(`lane ${n}`));
  expect(entered.filter(Boolean)).toHaveLength(2 * lanesPerCall);
  expect(entered.at(-1)).toBe(false);
  turns.leave();
  expect(turns.enter("another")).toBe(true);
});

test("nobody enters while the breaker is open, and one alone as its probe", () => {
  admitted = open;
  expect(turns.enter("one")).toBe(false);
  admitted = probing;
  expect([turns.enter("one"), turns.enter("two")]).toEqual([true, false]);
});

test("lanes that were put aside come back in their order, as many as there is room for", async () => {
  admitted = open;
  aside = Array.from({ length: 20 }, (_, n) => `lane ${n}`);
  for (let n = 0; n < 20; n++) turns.wasSetAside();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(looks).toBe(0);
  admitted = probing;
  await vi.advanceTimersByTimeAsync(100);
  expect(woken).toEqual(["lane 0"]);
  admitted = closed;
  turns.enter("lane 0");
  await vi.advanceTimersByTimeAsync(100);
  expect(woken).toHaveLength(2 * lanesPerCall);
  for (let n = 1; n < 20; n++) {
    turns.enter(`lane ${n}`);
    turns.leave();
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(woken).toEqual(Array.from({ length: 20 }, (_, n) => `lane ${n}`));
});

test("a lane that is on its way keeps its place, until it is clear that it will not come", async () => {
  aside = Array.from({ length: 20 }, (_, n) => `lane ${n}`);
  turns.wasSetAside();
  await vi.advanceTimersByTimeAsync(1_500);
  expect(woken).toHaveLength(2 * lanesPerCall);
  expect(turns.enter("lane 0")).toBe(true);
  await vi.advanceTimersByTimeAsync(1_000);
  // Seven of the first eight did not come; the one that did is in hand.
  expect(woken).toHaveLength(2 * lanesPerCall + 7);
});

test("nobody looks often while no lane is aside, and soon when one was put aside", async () => {
  await vi.advanceTimersByTimeAsync(60_000);
  expect(looks).toBeLessThan(20);
  aside = ["late"];
  turns.wasSetAside();
  await vi.advanceTimersByTimeAsync(100);
  expect(woken).toEqual(["late"]);
});

test("a lane that was taken back has its place, however many others come meanwhile", async () => {
  for (let n = 0; n < 2 * lanesPerCall; n++) turns.enter(`busy ${n}`);
  aside = ["old"];
  turns.wasSetAside();
  turns.leave();
  await vi.advanceTimersByTimeAsync(100);
  expect(woken).toEqual(["old"]);
  expect(turns.enter("fresh")).toBe(false);
  expect(turns.enter("old")).toBe(true);
});

test("the place of a lane that does not come is another's after a while", async () => {
  for (let n = 0; n < 2 * lanesPerCall; n++) turns.enter(`busy ${n}`);
  aside = ["lost"];
  turns.wasSetAside();
  turns.leave();
  await vi.advanceTimersByTimeAsync(2_200);
  expect(woken).toEqual(["lost"]);
  expect(turns.enter("fresh")).toBe(true);
});
