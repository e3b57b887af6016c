import { setTimeout as delay } from "node:timers/promises";

import { Client } from "pg";

import { startChild, type Child } from "../child.ts";
import { startGateway, type GatewayOptions } from "../gateway.ts";
import type { WaitingOptions } from "../options.ts";
import { createPhone } from "../phones.ts";
import { assertAllApplied, uploadAll } from "../replay/inbox.ts";
import type { JournalView } from "../replay/journal.ts";
import type { Postgres, RedisServer } from "../servers.ts";

export interface WaitingResult {
  contender: string;
  lanes: number;
  /** Of the upstream while it is down, in a minute. */
  callsPerMinute: number;
  /** Of the database while the upstream is down, in a minute: both processes', the sweepers' included. */
  transactionsPerMinute: number;
  /** From the upstream's return to the first effect, and to the last. */
  firstEffectMs: number;
  lastEffectMs: number;
  /** By how many places an effect came before or after its lane's turn, which is by when it was due: the 99th of 100. */
  displacementP99: number;
}

interface Parts {
  postgres: Postgres;
  redis: RedisServer | undefined;
  say: (line: string) => void;
}

/** How many lanes wait for an upstream that is down, what they cost meanwhile, and how they drain when it returns. */
export async function measureWaiting(parts: Parts, options: WaitingOptions): Promise<WaitingResult[]> {
  const upstream = startChild("replay/upstream.ts");
  const results: WaitingResult[] = [];
  try {
    const upstreamUrl = await upstream.ask<string>({ kind: "listen" });
    for (const redisUrl of parts.redis ? [parts.redis.url(5), undefined] : [undefined]) {
      const gateway = {
        databaseUrl: await parts.postgres.createGatewayDatabase(),
        redisUrl,
        upstreamUrl,
        upstreamConcurrency: options.concurrency,
        cpuProfDir: undefined,
      };
      results.push(await measure(upstream, gateway, options));
      parts.say(`waiting, on ${redisUrl ? "Redis" : "Postgres"}: done`);
    }
    return results;
  } finally {
    await upstream.stop();
  }
}

async function measure(
  upstream: Child,
  gateway: Omit<GatewayOptions, "role">,
  options: WaitingOptions,
): Promise<WaitingResult> {
  const { lanes, deadMs, latencyMs } = options;
  await upstream.ask({ kind: "reset", latencyMs });
  await upstream.ask({ kind: "down", isDown: true });
  const api = await startGateway({ ...gateway, role: "api" });
  const worker = await startGateway({ ...gateway, role: "worker" });
  const books = new Client({ connectionString: gateway.databaseUrl });
  await books.connect();
  try {
    await uploadAll(
      api.url,
      Array.from({ length: lanes }, (_, number) => createPhone(number, { batches: 1, mutationsPerBatch: 1 })),
    );
    await whenAside(books, lanes);
    const dead = await costOf(upstream, books, deadMs);
    const turns = await turnsOf(books);
    await upstream.ask({ kind: "down", isDown: false });
    const back = await drained(upstream, lanes);
    await assertAllApplied(gateway.databaseUrl);
    const contender = `tidegate on ${gateway.redisUrl ? "Redis" : "Postgres"}`;
    return { contender, lanes, ...dead, ...back, displacementP99: await displacementOf(upstream, turns) };
  } finally {
    await books.end();
    await worker.stop();
    await api.stop();
  }
}

const settleMsMax = 120_000;

/** What came in while the first calls failed is put aside one after the other. All but those in hand are, in the end. */
async function whenAside(books: Client, lanes: number): Promise<void> {
  for (const until = performance.now() + settleMsMax; performance.now() < until; await delay(500)) {
    await books.query("select set_config('tidegate.tenant_id', 'bench', false)");
    const { rows } = await books.query<{ aside: string }>(
      "select count(*) as aside from tidegate.lane where aside",
    );
    if (Number(rows[0]?.aside) >= lanes - 1) return;
  }
  throw new Error("the lanes of the upstream that is down were not put aside");
}

async function costOf(
  upstream: Child,
  books: Client,
  deadMs: number,
): Promise<Pick<WaitingResult, "callsPerMinute" | "transactionsPerMinute">> {
  const look = async () => {
    const { refused } = await upstream.ask<JournalView>({ kind: "journal" });
    const { rows } = await books.query<{ transactions: string }>(
      "select xact_commit + xact_rollback as transactions from pg_stat_database where datname = current_database()",
    );
    return { refused, transactions: Number(rows[0]?.transactions), at: performance.now() };
  };
  const before = await look();
  await delay(deadMs);
  const after = await look();
  const minutes = (after.at - before.at) / 60_000;
  return {
    callsPerMinute: (after.refused - before.refused) / minutes,
    transactionsPerMinute: (after.transactions - before.transactions) / minutes,
  };
}

async function drained(
  upstream: Child,
  lanes: number,
): Promise<Pick<WaitingResult, "firstEffectMs" | "lastEffectMs">> {
  const backAt = performance.now();
  let firstEffectMs: number | undefined;
  for (const until = backAt + settleMsMax; performance.now() < until; await delay(20)) {
    const { effects } = await upstream.ask<JournalView>({ kind: "journal" });
    if (effects > 0) firstEffectMs ??= performance.now() - backAt;
    if (effects >= lanes && firstEffectMs !== undefined) {
      // Their outcomes are on their way into the database.
      await delay(1_000);
      return { firstEffectMs, lastEffectMs: performance.now() - 1_000 - backAt };
    }
  }
  throw new Error(`the lanes were not drained within ${settleMsMax} ms`);
}

/** The phones, in the order in which their lanes are due. */
async function turnsOf(books: Client): Promise<number[]> {
  const { rows } = await books.query<{ phone: number }>(
    `select replace(c.user_id, 'mentor-', '')::integer as phone
     from tidegate.lane l join tidegate.client c on c.client_id = l.client_id order by l.due_at`,
  );
  return rows.map(({ phone }) => phone);
}

async function displacementOf(upstream: Child, turns: number[]): Promise<number> {
  const order = await upstream.ask<number[]>({ kind: "order" });
  const turnOf = new Map(turns.map((phone, turn) => [phone, turn]));
  const displacements = order.map((phone, place) => Math.abs(place - (turnOf.get(phone) ?? 0)));
  return displacements.toSorted((a, b) => a - b)[Math.floor(displacements.length * 0.99)] ?? 0;
}
