import { setTimeout as delay } from "node:timers/promises";

import { newDisturber, type Disturber } from "./disturb.ts";
import { follow, type Follower } from "./follower.ts";
import type { Options } from "./options.ts";
import { judgeEffects, judgeOpaque } from "./oracle/effects.ts";
import { gather, type Evidence } from "./oracle/evidence.ts";
import { judgeFeed, judgeFollower } from "./oracle/feed.ts";
import { judgeOutcomes } from "./oracle/outcomes.ts";
import { judgeIds, judgeRecords } from "./oracle/records.ts";
import type { Violation } from "./oracle/violation.ts";
import { newPhone, type Fleet, type Phone, type Queued } from "./phone.ts";
import { planProgram, type Program } from "./program.ts";
import { backlogOf, untilQuiet, untilSwept } from "./quiet.ts";
import { randomOf } from "./random.ts";
import { planDisturbances } from "./schedule.ts";
import type { Cleanup } from "./world/cleanup.ts";
import { openWorld, type Backend, type World } from "./world/world.ts";

export interface RunResult {
  backend: Backend;
  seed: number;
  seconds: number;
  mutations: number;
  outcomes: Record<string, number>;
  effects: number;
  faults: Record<string, number>;
  violations: Violation[];
  evidence: Evidence;
  world: World;
  timeline: Disturber["timeline"];
  /** From the end of the faults until nothing was under way any more. */
  quietAfterMs: number;
}

export type RunOptions = Omit<Options, "seeds" | "backends" | "untilFailure"> & {
  backend: Backend;
  seed: number;
};

/** Phones may still be sending when the faults end. */
const flushMs = 45_000;
/** How long calls go on failing after everything else has healed. */
const unsteadyMs = 10_000;
/** Take-overs, sweeps and backoffs are over long before. */
const quietMs = 120_000;
/** Phones that say more than is replayed under all these faults would only prove that it gets late. */
const backlogMax = 1_500;

/** One run: a world, phones that use it, faults, then peace, then judgement. What it found is in `violations`. */
export async function runOnce(
  { backend, seed, seconds, workers, phones: phoneCount, hot, rate, kinds }: RunOptions,
  cleanup: Cleanup,
  signal: AbortSignal,
): Promise<RunResult> {
  const random = randomOf(seed);
  const program = planProgram(random.fork("program"), { phones: phoneCount, seconds, hot });
  const schedule = planDisturbances(random.fork("faults"), { seconds, workers, backend, kinds });
  const world = await openWorld({ backend, seed, workers }, cleanup);
  const violations: Violation[] = [];
  const fleet = newFleet(world, random, violations);
  const phones = Array.from({ length: phoneCount }, (_, n) => newPhone(fleet, n));
  const readers = startFollowers(world, phones, fleet, violations);
  const disturber = newDisturber(world, (phone) => phones[phone]?.clientId ?? "");

  world.upstream.ask({ ask: "faults", rate });
  const startedAt = performance.now();
  const playing = { world, untilMs: seconds * 1_000, signal };
  await Promise.all([play(program, phones, startedAt, playing), disturber.run(schedule, startedAt, signal)]);
  await disturber.heal();
  await Promise.all(phones.map(async (phone) => await phone.flush(flushMs)));
  // Much is replayed only now; calls go on failing meanwhile.
  await untilQuiet(world, unsteadyMs, signal);
  world.upstream.ask({ ask: "faults", rate: 0 });
  const healedAt = performance.now();
  const isQuiet = await untilQuiet(world, quietMs, signal);
  const quietAfterMs = performance.now() - healedAt;
  const unread = await untilSwept(world, quietMs, signal);
  await world.stopWorkers();
  await Promise.all(readers.map(async ({ follower }) => await follower.finish()));

  const deadlocks = await world.postgres.deadlocks();
  const queues = deadlocks.filter(({ isQueues }) => isQueues).length;
  const evidence = await gather(world, [...fleet.mutations.values()]);
  // What is found besides may then only be unfinished.
  if (!isQuiet) violations.push({ kind: "stuck", what: "lanes are still at work", about: [] });
  for (const what of unread) violations.push({ kind: "stuck", what: `not read: ${what}`, about: [] });
  violations.push(
    ...judgeOutcomes(evidence),
    ...judgeEffects(evidence),
    ...judgeOpaque(evidence),
    ...judgeIds(evidence),
    ...judgeRecords(evidence),
    ...(await judgeFeed(world)),
    ...readers.flatMap(({ follower, phone }) => judgeFollower(follower, phone, evidence)),
    ...judgeServers(world, disturber, deadlocks),
  );
  const { faults } = await world.upstream.report();
  return {
    backend,
    seed,
    seconds,
    mutations: fleet.mutations.size,
    outcomes: countOutcomes(evidence),
    effects: evidence.effects.length,
    faults: { ...disturber.counts, ...faults, ...(queues > 0 && { "deadlock of the queue's own": queues }) },
    violations,
    evidence,
    world,
    timeline: disturber.timeline,
    quietAfterMs,
  };
}

function newFleet(world: World, random: ReturnType<typeof randomOf>, violations: Violation[]): Fleet {
  return {
    apiUrl: world.apiUrl,
    random,
    mutations: new Map<string, Queued>(),
    created: new Set(),
    serverIds: new Map(),
    violation: (what, about) => void violations.push({ kind: "told", what, about: about ? [about] : [] }),
  };
}

/** Some phones follow with their own outcomes, and one reader follows without any. */
function startFollowers(
  world: World,
  phones: Phone[],
  fleet: Fleet,
  violations: Violation[],
): { follower: Follower; phone: Phone | undefined }[] {
  return [...phones.slice(0, 3), undefined].map((phone) => ({
    phone,
    follower: follow({
      apiUrl: world.apiUrl,
      client: phone,
      random: fleet.random.fork(`follower ${phone?.index}`),
      entityOf: (id) => fleet.mutations.get(id)?.body.entity,
      violation: (what) => void violations.push({ kind: "feed", what, about: [] }),
    }),
  }));
}

/** Lets the phones act at their times; while too much is waiting to be replayed, they have nothing to say. */
async function play(
  program: Program,
  phones: Phone[],
  startedAt: number,
  { world, untilMs, signal }: { world: World; untilMs: number; signal: AbortSignal },
): Promise<void> {
  let pausedMs = 0;
  let lookAtMs = 0;
  for (const turn of program.turns) {
    const elapsedMs = (): number => performance.now() - startedAt;
    await delay(Math.max(0, turn.atMs + pausedMs - elapsedMs()), undefined, { signal });
    if (elapsedMs() > lookAtMs) {
      const beganMs = elapsedMs();
      while ((await backlogOf(world)) > backlogMax && elapsedMs() < untilMs)
        await delay(500, undefined, { signal });
      lookAtMs = elapsedMs() + 1_000;
      pausedMs += elapsedMs() - beganMs;
    }
    if (elapsedMs() > untilMs) return;
    phones[turn.phone]?.act(turn);
  }
}

function judgeServers(
  world: World,
  { failures }: Disturber,
  deadlocks: Awaited<ReturnType<World["postgres"]["deadlocks"]>>,
): Violation[] {
  return [
    ...world.crashes.map((what): Violation => ({ kind: "crash", what, about: [] })),
    ...failures.map((what): Violation => ({ kind: "crash", what: `the suite's own: ${what}`, about: [] })),
    ...deadlocks
      .filter(({ isQueues }) => !isQueues)
      .map(({ text }): Violation => ({ kind: "deadlock", what: text, about: [] })),
  ];
}

function countOutcomes({ mutations, keys, deliveries }: Evidence): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { body } of mutations) {
    const outcome = keys.get(body.id)?.status ?? deliveries.get(body.id)?.state ?? "none";
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
}
