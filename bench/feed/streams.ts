import { startChild, type Child } from "../child.ts";
import { startGateway } from "../gateway.ts";
import type { StreamsOptions } from "../options.ts";
import type { Postgres } from "../servers.ts";
import { quantile, spreadOf, type Spread } from "../stats.ts";
import type { Received } from "./readers.ts";
import type { WriterRequest } from "./writer.ts";

export interface StreamsResult {
  contender: string;
  /** From a commit to its receipt by one reader; of the rounds. */
  p50Ms: Spread;
  p99Ms: Spread;
}

type Contender = WriterRequest["contender"];

/** How long after a commit the readers of one scope have it. Fails if one of them misses something. */
export async function measureStreams(
  { postgres, say }: { postgres: Postgres; say: (line: string) => void },
  options: StreamsOptions,
): Promise<StreamsResult[]> {
  const rounds = new Map<Contender, number[][]>([
    ["floor", []],
    ["tidegate", []],
  ]);
  for (let round = 0; round < options.rounds; round++) {
    const order: Contender[] = round % 2 ? ["tidegate", "floor"] : ["floor", "tidegate"];
    for (const contender of order)
      rounds.get(contender)?.push(await measureOne(postgres, contender, options));
    say(`streams, round ${round + 1}: done`);
  }
  return Array.from(rounds, ([contender, latencies]) => ({
    contender,
    p50Ms: spreadOf(latencies.map((one) => quantile(one, 0.5))),
    p99Ms: spreadOf(latencies.map((one) => quantile(one, 0.99))),
  }));
}

async function measureOne(
  postgres: Postgres,
  contender: Contender,
  options: StreamsOptions,
): Promise<number[]> {
  const [readers, writer] = [startChild("feed/readers.ts"), startChild("feed/writer.ts")];
  const databaseUrl =
    contender === "floor" ? await postgres.createDatabase() : await postgres.createGatewayDatabase();
  const server = await startServer(contender, databaseUrl);
  try {
    return await follow(readers, writer, { contender, databaseUrl, url: server.url }, options);
  } finally {
    await readers.stop();
    await writer.stop();
    await server.stop();
  }
}

async function startServer(
  contender: Contender,
  databaseUrl: string,
): Promise<{ url: string; stop: () => Promise<void> }> {
  if (contender === "floor") {
    const child = startChild("feed/floor.ts");
    return { url: await child.ask<string>({ databaseUrl }), stop: child.stop };
  }
  // Nobody replays here.
  const nobody = { redisUrl: undefined, upstreamUrl: "http://127.0.0.1:9", upstreamConcurrency: 1 };
  return await startGateway({ role: "api", databaseUrl, ...nobody, cpuProfDir: undefined });
}

async function follow(
  readers: Child,
  writer: Child,
  { url, ...to }: { contender: Contender; databaseUrl: string; url: string },
  { readers: count, writes, everyMs }: StreamsOptions,
): Promise<number[]> {
  await readers.ask({ kind: "open", url, readers: count });
  const committedAt = await writer.ask<number[]>({ ...to, writes, everyMs });
  const received = await readers.ask<Received>({ kind: "received" });
  return committedAt.flatMap((at, n) => {
    const times = received[n] ?? [];
    if (times.length !== count)
      throw new Error(`${to.contender}: change ${n} reached ${times.length} of ${count}`);
    return times.map((time) => time - at);
  });
}
