import { startChild, type Child } from "../child.ts";
import { startGateway } from "../gateway.ts";
import type { IngestOptions } from "../options.ts";
import type { Postgres, RedisServer } from "../servers.ts";
import { quantile, spreadOf, type Spread } from "../stats.ts";
import type { LoadAnswer, LoadRequest } from "./load.ts";

export interface IngestResult {
  mutationsPerBatch: number;
  contender: string;
  mutationsPerSecond: Spread;
  /** The medians of the contender and of the floor. */
  ratioToFloor: number;
  batchMs: { p50: number; p99: number };
}

interface Contender {
  name: string;
  url: string;
  stop: () => Promise<void>;
}

interface Parts {
  postgres: Postgres;
  redis: RedisServer | undefined;
  cpuProfDir: string | undefined;
  say: (line: string) => void;
}

/** Measures how many mutations each contender acknowledges in a second, turn by turn. */
export async function measureIngest(parts: Parts, options: IngestOptions): Promise<IngestResult[]> {
  const contenders: Contender[] = [];
  const load = startChild("ingest/load.ts");
  try {
    await startContenders(contenders, parts);
    const results: IngestResult[] = [];
    for (const [size, batches] of Object.entries(options.batches)) {
      const turns = await measureSize(load, contenders, options, { size: Number(size), batches });
      results.push(...toResults(Number(size), turns));
      parts.say(`ingest, batches of ${size}: done`);
    }
    return results;
  } finally {
    await load.stop();
    for (const contender of contenders) await contender.stop();
  }
}

async function startContenders(
  contenders: Contender[],
  { postgres, redis, cpuProfDir }: Parts,
): Promise<void> {
  const databaseUrl = await postgres.createDatabase();
  const queueDatabaseUrl = await postgres.createGatewayDatabase();
  for (const name of ["floor", "naive"]) {
    const child = startChild(`ingest/${name}.ts`);
    const url = await child.ask<string>({ databaseUrl, redisUrl: redis?.url(1), queueDatabaseUrl });
    contenders.push({ name, url, stop: child.stop });
  }
  const gateway = await startGateway({
    role: "api",
    databaseUrl: queueDatabaseUrl,
    redisUrl: redis?.url(2),
    // Nobody replays here.
    upstreamUrl: "http://127.0.0.1:9",
    upstreamConcurrency: 1,
    cpuProfDir,
  });
  contenders.push({ name: "tidegate", ...gateway });
}

type Turns = Map<string, LoadAnswer[]>;

/** One unmeasured round to warm up, then the contenders in turn, each round beginning with another one. */
async function measureSize(
  load: Child,
  contenders: Contender[],
  { connections, turnMsMax, rounds }: IngestOptions,
  { size, batches }: { size: number; batches: number },
): Promise<Turns> {
  const turns: Turns = new Map(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const index of contenders.keys()) {
      const contender = contenders[(index + round) % contenders.length];
      if (!contender) continue;
      const request = { url: contender.url, connections, mutationsPerBatch: size, batches, turnMsMax };
      const answer = await load.ask<LoadAnswer>(request satisfies LoadRequest);
      if (round > 0) turns.get(contender.name)?.push(answer);
    }
  }
  return turns;
}

function toResults(mutationsPerBatch: number, turns: Turns): IngestResult[] {
  const floor = rates(turns.get("floor") ?? []).median;
  return Array.from(turns, ([contender, answers]) => {
    const latencies = answers.flatMap(({ latenciesMs }) => latenciesMs);
    const mutationsPerSecond = rates(answers);
    return {
      mutationsPerBatch,
      contender,
      mutationsPerSecond,
      ratioToFloor: mutationsPerSecond.median / floor,
      batchMs: { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) },
    };
  });
}

function rates(answers: LoadAnswer[]): Spread {
  return spreadOf(answers.map(({ mutations, elapsedMs }) => (mutations / elapsedMs) * 1_000));
}
