import type { Random } from "./random.ts";
import type { Backend } from "./world/world.ts";

/** One disturbance of the run. Calls that fail at the upstream are chosen there, request by request. */
export type Disturbance =
  | { kind: "kill worker"; place: number; backAfterMs: number; clockShiftMs: number }
  | { kind: "stop worker"; place: number; forMs: number }
  | { kind: "turn worker's clock"; place: number }
  /** At a moment that the suite makes: see placed.ts. */
  | { kind: "between claim and send" | "between send and answer" | "between answer and commit"; how: Blow }
  | { kind: "kill api" }
  | { kind: "lose all jobs" }
  | { kind: "restart redis" }
  | { kind: "freeze redis"; forMs: number }
  | { kind: "terminate backends"; share: number }
  | { kind: "restart postgres, fast" | "restart postgres, immediate" }
  | { kind: "upstream refuses" | "upstream half-open"; forMs: number };

/** What happens to the worker at that moment. */
export type Blow = { signal: "SIGKILL" } | { signal: "SIGSTOP"; forMs: number };

export interface Scheduled {
  atMs: number;
  disturbance: Disturbance;
}

const hourMs = 3_600_000;
/** Longer than any lease: somebody else has taken the lane over by then. */
const pastLeaseMs = [6_000, 7_500, 9_000];

/** When what is disturbed. Heavier things come more seldom. */
export function planDisturbances(
  random: Random,
  {
    seconds,
    workers,
    backend,
    kinds,
  }: { seconds: number; workers: number; backend: Backend; kinds: string[] },
): Scheduled[] {
  const list: Scheduled[] = [];
  for (let atMs = 500; atMs < seconds * 1_000; atMs += random.between(300, 2_200)) {
    list.push({ atMs, disturbance: plan(random, workers, backend, kinds) });
  }
  return list;
}

function plan(random: Random, workers: number, backend: Backend, kinds: string[]): Disturbance {
  const place = random.between(0, workers - 1);
  const forMs = random.pick([200, 1_000, ...pastLeaseMs]);
  const how: Blow = random.chance(0.5)
    ? { signal: "SIGKILL" }
    : { signal: "SIGSTOP", forMs: random.pick(pastLeaseMs) };
  const clockShiftMs = random.chance(0.4) ? random.pick([-1, 1]) * random.between(1, 48) * hourMs : 0;
  const weighted: [number, Disturbance][] = [
    [3, { kind: "kill worker", place, backAfterMs: random.between(0, 1_500), clockShiftMs }],
    [4, { kind: "stop worker", place, forMs }],
    [1, { kind: "turn worker's clock", place }],
    [2, { kind: "between claim and send", how }],
    [3, { kind: "between send and answer", how }],
    [3, { kind: "between answer and commit", how }],
    [1, { kind: "kill api" }],
    [3, { kind: "lose all jobs" }],
    [2, { kind: "terminate backends", share: random.pick([0.3, 1]) }],
    [0.7, { kind: "restart postgres, fast" }],
    [0.7, { kind: "restart postgres, immediate" }],
    [1.5, { kind: "upstream refuses", forMs: random.between(100, 1_200) }],
    [1.5, { kind: "upstream half-open", forMs: random.between(300, 1_500) }],
    [backend === "redis" ? 1.5 : 0, { kind: "restart redis" }],
    [backend === "redis" ? 1 : 0, { kind: "freeze redis", forMs: random.between(200, 1_500) }],
  ];
  const wanted = weighted.filter(([, { kind }]) => kinds.some((part) => kind.includes(part)));
  return choose(random, wanted);
}

function choose<T>(random: Random, weighted: [number, T][]): T {
  let left = random.next() * weighted.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, choice] of weighted) {
    left -= weight;
    if (left < 0) return choice;
  }
  throw new Error("nothing to choose from");
}
