import { setTimeout as delay } from "node:timers/promises";

import { startChild, type Child } from "../child.ts";
import { startGateway, type GatewayOptions } from "../gateway.ts";
import type { ReplayOptions } from "../options.ts";
import { createPhone, type Phone } from "../phones.ts";
import type { Postgres, RedisServer } from "../servers.ts";
import { spreadOf, type Spread } from "../stats.ts";
import { assertAllApplied, uploadAll } from "./inbox.ts";
import type { JournalView } from "./journal.ts";

export interface ReplayResult {
  latencyMs: number;
  contender: string;
  mutationsPerSecond: Spread;
  /** The medians of the contender and of the floor. */
  ratioToFloor: number;
  /** Of a turn, over all turns. */
  outOfOrder: Spread;
  duplicates: number;
}

interface Parts {
  postgres: Postgres;
  redis: RedisServer | undefined;
  cpuProfDir: string | undefined;
  say: (line: string) => void;
}

export interface Contender {
  name: string;
  /** Replays the phones' mutations. Resolves with the journal, once all took effect and it has stopped. */
  turn: (phones: Phone[]) => Promise<JournalView>;
  stop: () => Promise<void>;
}

/** Measures the time from the first to the last effect in the upstream's journal, turn by turn. */
export async function measureReplay(parts: Parts, options: ReplayOptions): Promise<ReplayResult[]> {
  const upstream = startChild("replay/upstream.ts");
  const contenders: Contender[] = [];
  try {
    const upstreamUrl = await upstream.ask<string>({ kind: "listen" });
    await openContenders(contenders, parts, { upstream, upstreamUrl, ...options });
    const results: ReplayResult[] = [];
    for (const latencyMs of options.latenciesMs) {
      const turns = await measureTurns(upstream, contenders, options, latencyMs);
      results.push(...toResults(latencyMs, turns));
      parts.say(`replay, ${latencyMs} ms: done`);
    }
    return results;
  } finally {
    for (const contender of contenders) await contender.stop();
    await upstream.stop();
  }
}

async function openContenders(contenders: Contender[], parts: Parts, shared: Shared): Promise<void> {
  const { postgres, redis, cpuProfDir } = parts;
  const queueDatabaseUrl = await postgres.createGatewayDatabase();
  contenders.push(openFloor(shared), openNaive(shared, { redisUrl: redis?.url(3), queueDatabaseUrl }));
  const ways: Way[] = [
    ...(redis ? [{ name: "tidegate on Redis", redisUrl: redis.url(4), workers: 1 }] : []),
    ...(redis ? [{ name: "the same, two workers", redisUrl: redis.url(6), workers: 2 }] : []),
    { name: "tidegate on Postgres", redisUrl: undefined, workers: 1 },
  ];
  for (const way of ways) {
    const gateway = await openTidegate(way, shared, {
      databaseUrl: await postgres.createGatewayDatabase(),
      redisUrl: way.redisUrl,
      upstreamUrl: shared.upstreamUrl,
      // The upstream's limit is one process's, so that of several is divided.
      upstreamConcurrency: shared.concurrency / way.workers,
      cpuProfDir,
    });
    contenders.push(gateway);
  }
}

/** How the gateway is run. */
interface Way {
  name: string;
  redisUrl: string | undefined;
  /** Processes in the role `worker`. */
  workers: number;
}

type Shared = { upstream: Child; upstreamUrl: string } & ReplayOptions;

/** The upstream, and what has to reach it. */
type Expected = Pick<Shared, "upstream" | "phones" | "mutationsPerPhone">;

function openFloor({ upstream, upstreamUrl, concurrency }: Shared): Contender {
  return {
    name: "floor",
    async turn(phones) {
      const child = startChild("replay/floor.ts");
      await child.ask({ upstreamUrl, concurrency, phones });
      await child.stop();
      return await upstream.ask<JournalView>({ kind: "journal" });
    },
    stop: async () => await Promise.resolve(),
  };
}

function openNaive(
  shared: Shared,
  queue: { redisUrl: string | undefined; queueDatabaseUrl: string },
): Contender {
  const { upstreamUrl, concurrency } = shared;
  return {
    name: "naive",
    async turn(phones) {
      const filler = startChild("replay/naive.ts");
      await filler.ask({ kind: "fill", phones, ...queue });
      await filler.stop();
      const worker = startChild("replay/naive.ts");
      await worker.ask({ kind: "work", upstreamUrl, concurrency, ...queue });
      const view = await whenDone(shared);
      // Its last jobs are finished in the queue too, so that the next turn begins with an empty one.
      await delay(500);
      await worker.stop();
      return view;
    },
    stop: async () => await Promise.resolve(),
  };
}

/** The API stays up to be filled; the workers are other processes for each turn, as every contender's are. */
export async function openTidegate(
  { name, workers: count }: Way,
  shared: Expected,
  options: Omit<GatewayOptions, "role">,
): Promise<Contender> {
  const api = await startGateway({ ...options, role: "api", cpuProfDir: undefined });
  return {
    name,
    async turn(phones) {
      await uploadAll(api.url, phones);
      const workers = await Promise.all(
        Array.from({ length: count }, () => startGateway({ ...options, role: "worker" })),
      );
      await whenDone(shared);
      await Promise.all(workers.map((worker) => worker.stop()));
      await assertAllApplied(options.databaseUrl);
      return await shared.upstream.ask<JournalView>({ kind: "journal" });
    },
    stop: api.stop,
  };
}

const turnMsMax = 120_000;

async function whenDone({ upstream, phones, mutationsPerPhone }: Expected): Promise<JournalView> {
  const until = performance.now() + turnMsMax;
  while (performance.now() < until) {
    const view = await upstream.ask<JournalView>({ kind: "journal" });
    if (view.effects >= phones * mutationsPerPhone) return view;
    await delay(50);
  }
  throw new Error(`not everything reached the upstream within ${turnMsMax} ms`);
}

export type Turns = Map<string, JournalView[]>;

/** The contenders in turn, each round beginning with another one. */
export async function measureTurns(
  upstream: Child,
  contenders: Contender[],
  { rounds, phones: count, mutationsPerPhone }: Omit<ReplayOptions, "latenciesMs" | "concurrency">,
  latencyMs: number,
): Promise<Turns> {
  const turns: Turns = new Map(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const index of contenders.keys()) {
      const contender = contenders[(index + round) % contenders.length];
      if (!contender) continue;
      await upstream.ask({ kind: "reset", latencyMs });
      const phones = Array.from({ length: count }, (_, number) =>
        createPhone(number, { batches: 1, mutationsPerBatch: mutationsPerPhone }),
      );
      const view = await contender.turn(phones);
      assertComplete(contender, view, count * mutationsPerPhone);
      turns.get(contender.name)?.push(view);
    }
  }
  return turns;
}

/** What Tidegate promises: everything, in order, once. What the naive design loses of it is only counted. */
function assertComplete({ name }: Contender, view: JournalView, expected: number): void {
  const { effects, duplicates, outOfOrder } = view;
  const isWrong = effects - duplicates !== expected || duplicates > 0 || outOfOrder > 0;
  if (isWrong && name !== "naive") throw new Error(`${name} broke a promise: ${JSON.stringify(view)}`);
}

function toResults(latencyMs: number, turns: Turns): ReplayResult[] {
  const floor = rates(turns.get("floor") ?? []).median;
  return Array.from(turns, ([contender, views]) => ({
    latencyMs,
    contender,
    mutationsPerSecond: rates(views),
    ratioToFloor: rates(views).median / floor,
    outOfOrder: spreadOf(views.map(({ outOfOrder }) => outOfOrder)),
    duplicates: views.reduce((sum, { duplicates }) => sum + duplicates, 0),
  }));
}

/** In mutations per second. */
export function rates(views: JournalView[]): Spread {
  return spreadOf(views.map(({ effects, elapsedMs }) => (effects / elapsedMs) * 1_000));
}
