import * as fc from "fast-check";
import { expect, test } from "vitest";

import { createCircuit, type Circuit, type CircuitState, type Passage } from "./circuit.ts";

interface Setup {
  circuit: Circuit;
  changes: CircuitState[];
  pass: (ms: number) => void;
}

function setup({ failures = 3, cooldownMs = 1000, rampMax = 8 } = {}): Setup {
  let nowMs = 0;
  const changes: CircuitState[] = [];
  const circuit = createCircuit({
    failures,
    cooldownMs,
    rampMax,
    now: () => nowMs,
    onChange: (state) => changes.push(state),
  });
  return { circuit, changes, pass: (ms) => void (nowMs += ms) };
}

function fail(circuit: Circuit, times = 1, retryAfterMs?: number): void {
  for (let n = 0; n < times; n++) circuit.enter()!.failed(retryAfterMs);
}

test("failures in a row open it; an answer in between starts the count again", () => {
  const { circuit } = setup();
  fail(circuit, 2);
  circuit.enter()!.succeeded();
  fail(circuit, 2);
  expect(circuit.state()).toBe("closed");
  fail(circuit);
  expect(circuit.state()).toBe("open");
});

test("what the caller stopped does not count", () => {
  const { circuit } = setup();
  fail(circuit, 2);
  for (let n = 0; n < 10; n++) circuit.enter()!.abandoned();
  expect(circuit.state()).toBe("closed");
  fail(circuit);
  expect(circuit.state()).toBe("open");
});

test("open, it lets nobody in until the cooldown is over, then one probe", () => {
  const { circuit, changes, pass } = setup();
  fail(circuit, 3);
  pass(999);
  expect(circuit.retryAfterMs()).toBe(1);
  expect(circuit.enter()).toBeUndefined();
  pass(1);
  expect(circuit.retryAfterMs()).toBe(0);
  const probe = circuit.enter();
  expect(probe).toBeDefined();
  expect(circuit.enter()).toBeUndefined();
  expect(circuit.retryAfterMs()).toBeGreaterThan(0);
  probe!.failed();
  expect(circuit.enter()).toBeUndefined();
  expect(changes).toEqual(["open", "half-open", "open"]);
});

test("an abandoned probe gives its place to the next", () => {
  const { circuit, pass } = setup();
  fail(circuit, 3);
  pass(1000);
  circuit.enter()!.abandoned();
  circuit.enter()!.succeeded();
  expect(circuit.state()).toBe("closed");
});

test("it stays open as long as the upstream asked for", () => {
  const { circuit, pass } = setup();
  fail(circuit, 2);
  fail(circuit, 1, 30_000);
  pass(29_999);
  expect(circuit.enter()).toBeUndefined();
  pass(1);
  expect(circuit.enter()).toBeDefined();
});

test("recovery ramps up 1, 2, 4, 8 and then counts no more; a failure begins it again", () => {
  const { circuit, pass } = setup();
  fail(circuit, 3);
  pass(1000);
  circuit.enter()!.succeeded();
  const allowances = [circuit.inFlightMax()];
  const succeed = (times: number): void => {
    for (let n = 0; n < times; n++) circuit.enter()!.succeeded();
    allowances.push(circuit.inFlightMax());
  };
  succeed(1);
  succeed(2);
  fail(circuit);
  allowances.push(circuit.inFlightMax());
  succeed(1);
  succeed(2);
  succeed(4);
  succeed(8);
  expect(allowances).toEqual([1, 2, 4, 1, 2, 4, 8, Infinity]);
});

test("a call from before the breaker opened neither closes nor opens it again", () => {
  const { circuit, pass } = setup();
  const slow = [circuit.enter()!, circuit.enter()!];
  fail(circuit, 3);
  slow[0]!.succeeded();
  expect(circuit.state()).toBe("open");
  pass(1000);
  const probe = circuit.enter()!;
  slow[1]!.failed();
  expect(circuit.state()).toBe("half-open");
  probe.succeeded();
  expect(circuit.state()).toBe("closed");
});

test("it can be tripped", () => {
  const { circuit } = setup();
  circuit.trip();
  expect(circuit.enter()).toBeUndefined();
  expect(circuit.retryAfterMs()).toBe(1000);
});

test("whatever happens, a probe is alone, and an open breaker lets nobody in before its cooldown", () => {
  const step = fc.oneof(
    fc.constant("enter" as const),
    fc.record({ end: fc.constantFrom("succeeded", "failed", "abandoned"), which: fc.nat(9) }),
    fc.record({ passMs: fc.integer({ min: 1, max: 1500 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const { circuit, changes, pass } = setup({ failures: 2, cooldownMs: 1000 });
      const passages: Passage[] = [];
      let probe: Passage | undefined;
      let openMs = 0;
      for (const one of steps) {
        const changesBefore = changes.length;
        if (one === "enter") {
          const wasOpen = circuit.state() === "open";
          const passage = circuit.enter();
          if (passage && wasOpen) expect(openMs).toBeGreaterThanOrEqual(1000);
          if (passage) passages.push(passage);
          if (passage && circuit.state() === "half-open") {
            expect(probe).toBeUndefined();
            probe = passage;
          }
        } else if ("passMs" in one) {
          pass(one.passMs);
          openMs += one.passMs;
        } else {
          const [passage] = passages.splice(one.which % Math.max(passages.length, 1), 1);
          passage?.[one.end]();
          if (passage === probe) probe = undefined;
        }
        if (changes.length > changesBefore && circuit.state() === "open") openMs = 0;
        expect(circuit.inFlightMax()).toBeGreaterThanOrEqual(1);
      }
    }),
  );
});
