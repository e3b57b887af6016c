import { randomUUID } from "node:crypto";

import { signCursor } from "../../src/change-feed/cursor.ts";
import { readHead } from "../../src/change-feed/head.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { startChild, type Child } from "../child.ts";
import { cursorSecret, scopeOf, startGateway } from "../gateway.ts";
import type { PullsOptions } from "../options.ts";
import { tokenFor } from "../phones.ts";
import type { Postgres } from "../servers.ts";
import { quantile, spreadOf, type Spread } from "../stats.ts";
import { fillFloor, fillGateway, manyOf, positionBefore, readers } from "./pulls-data.ts";
import type { PullsTables } from "./pulls-raw.ts";
import type { PullsAnswer, PullsRequest } from "./pulls-load.ts";

export interface PullsResult {
  what: string;
  contender: string;
  changesPerSecond: Spread;
  ratioToFloor: number;
  /** Of a page, over all rounds. */
  pageMs: { p50: number; p99: number };
}

interface Contender {
  name: "floor" | "by hand" | "tidegate";
  url: string;
  /** Names a position to one client of the reader of many. */
  cursorOf: (position: number, clientId: string) => string;
  stop: () => Promise<void>;
}

interface Task {
  what: string;
  /** How many changes have to come in all. */
  changes: number;
  request: (contender: Contender) => PullsRequest;
}

/** How fast readers get what they have not seen. Fails if one of them does not get all of it. */
export async function measurePulls(
  {
    postgres,
    cpuProfDir,
    say,
  }: { postgres: Postgres; cpuProfDir: string | undefined; say: (line: string) => void },
  options: PullsOptions,
): Promise<PullsResult[]> {
  const databaseUrl = await fillAll(postgres, options);
  const contenders = [
    await startRaw("floor", databaseUrl.floor),
    await startRaw("by hand", databaseUrl.gateway),
    await startTidegate(databaseUrl.gateway, cpuProfDir),
  ];
  say(`pulls: ${options.records} records are there`);
  const load = startChild("feed/pulls-load.ts");
  try {
    const results: PullsResult[] = [];
    for (const task of tasksOf(options)) {
      results.push(...(await measureTask(load, contenders, task, options.rounds)));
      say(`pulls, ${task.what}: done`);
    }
    return results;
  } finally {
    await load.stop();
    for (const contender of contenders) await contender.stop();
  }
}

async function measureTask(
  load: Child,
  contenders: Contender[],
  { what, changes, request }: Task,
  rounds: number,
): Promise<PullsResult[]> {
  const answers = new Map<Contender, PullsAnswer[]>(contenders.map((contender) => [contender, []]));
  // The first round is for the caches.
  for (let round = 0; round <= rounds; round++) {
    for (const contender of round % 2 ? contenders.toReversed() : contenders) {
      const answer = await load.ask<PullsAnswer>(request(contender));
      if (answer.changes !== changes)
        throw new Error(`${contender.name}, ${what}: ${answer.changes} changes`);
      if (round > 0) answers.get(contender)?.push(answer);
    }
  }
  const rates = Array.from(answers, ([{ name }, own]) => {
    const pages = own.flatMap(({ pagesMs }) => pagesMs);
    return {
      what,
      contender: name,
      changesPerSecond: spreadOf(own.map(({ elapsedMs }) => (changes / elapsedMs) * 1_000)),
      pageMs: { p50: quantile(pages, 0.5), p99: quantile(pages, 0.99) },
    };
  });
  const floor = rates[0]?.changesPerSecond.median ?? NaN;
  return rates.map((rate) => ({ ...rate, ratioToFloor: rate.changesPerSecond.median / floor }));
}

function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

function tasksOf(options: PullsOptions): Task[] {
  const { records, pageSize, clients, few, fewTimes } = options;
  const path = `/v1/changes?limit=${pageSize}`;
  const [many, little] = [tokenFor(readers.many), tokenFor(readers.few)];
  const from = positionBefore(pageSize, options);
  return [
    {
      what: `${grouped(manyOf(options))} in pages of ${pageSize}`,
      changes: manyOf(options),
      request: ({ url }) => ({ url, readers: [{ token: many, path }], times: 1 }),
    },
    {
      what: `${clients} clients, the last ${pageSize}`,
      changes: clients * pageSize,
      request: ({ url, cursorOf }) => ({
        url,
        times: 1,
        readers: Array.from({ length: clients }, () => {
          const clientId = randomUUID();
          return { token: many, path: `${path}&clientId=${clientId}&cursor=${cursorOf(from, clientId)}` };
        }),
      }),
    },
    {
      what: `${few} among ${grouped(records)}`,
      changes: few * fewTimes,
      request: ({ url }) => ({ url, readers: [{ token: little, path }], times: fewTimes }),
    },
  ];
}

async function fillAll(
  postgres: Postgres,
  options: PullsOptions,
): Promise<{ floor: string; gateway: string }> {
  const [floor, gateway] = [await postgres.createDatabase(), await postgres.createGatewayDatabase()];
  await fillFloor(floor, options);
  await postgres.vacuum(floor);
  await fillGateway(gateway, options);
  await postgres.vacuum(gateway);
  return { floor, gateway };
}

async function startRaw(name: "floor" | "by hand", databaseUrl: string): Promise<Contender> {
  const child = startChild("feed/pulls-raw.ts");
  const tables: PullsTables = name === "floor" ? "one" : "gateway";
  const url = await child.ask<string>({ databaseUrl, tables });
  return { name, url, cursorOf: String, stop: child.stop };
}

async function startTidegate(databaseUrl: string, cpuProfDir: string | undefined): Promise<Contender> {
  const db = openDatabase(databaseUrl, { poolMax: 1, onError: () => undefined });
  const { epoch } = await inTenant(db, "bench", async (trx) => await readHead(trx, "bench"));
  await db.destroy();
  // Nobody replays here.
  const nobody = { redisUrl: undefined, upstreamUrl: "http://127.0.0.1:9", upstreamConcurrency: 1 };
  const { url, stop } = await startGateway({ role: "api", databaseUrl, ...nobody, cpuProfDir });
  const scopes = ["org", scopeOf(readers.many)];
  const cursorOf: Contender["cursorOf"] = (position, clientId) =>
    signCursor([cursorSecret], { tenantId: "bench", clientId, scopes, epoch }, position);
  return { name: "tidegate", url, cursorOf, stop };
}
