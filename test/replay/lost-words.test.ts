import { Redis } from "ioredis";
import { describe, expect, test, vi } from "vitest";

import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
  test("every job is deleted, of waiting lanes, of lanes in work and of delayed ones: everything arrives once", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using gateway = await startGateway({
      queues,
      upstreams: capabilities(upstream.url, { timeoutMs: 5_000 }),
    });
    const gate = Promise.withResolvers<void>();
    const phones = Array.from({ length: 6 }, () => newPhone(gateway));
    // Half of them are in work when it happens, half wait for their second attempt.
    upstream.script(
      { method: "POST", path: "/lookup" },
      ...phones.map((_, n) =>
        n % 2 === 0 ? faults.hold(gate.promise) : faults.status(429, { headers: { "retry-after": "2" } }),
      ),
    );
    for (const phone of phones) await sendCreates(phone, "lookup", 3);
    await upstream.received({ method: "POST", path: "/lookup" }, phones.length);
    await vi.waitFor(async () => expect(await jobsOf(gateway)).toBeGreaterThan(0), { timeout: 20_000 });
    await loseJobs(gateway);
    gate.resolve();
    for (const phone of phones) {
      expect(linesOf(await phone.settled(30_000))).toEqual(["applied", "applied", "applied"]);
      expect(createsOf(upstream, phone)).toEqual([0, 1, 2]);
    }
  });

  test("what was accepted while nobody replayed, and whose jobs are gone, is found", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    const upstreams = capabilities(upstream.url);
    await using api = await startGateway({ queues, role: "api", upstreams });
    const phone = newPhone(api);
    await sendCreates(phone, "upsert", 2);
    await vi.waitFor(async () => expect(await jobsOf(api)).toBe(1), { timeout: 20_000 });
    await loseJobs(api);
    expect(upstream.requests).toEqual([]);
    await api.another("worker");
    expect(linesOf(await phone.settled(30_000))).toEqual(["applied", "applied"]);
  });

  test("the database's connections break again and again: everything arrives once, in order, and nothing parks", async () => {
    await using upstream = await startScriptedUpstream({ ...storeOptions, latencyMs: 3 });
    await using gateway = await startGateway({ queues, upstreams: capabilities(upstream.url) });
    const phones = classes.map((name) => [name, newPhone(gateway)] as const);
    for (const [name, phone] of phones) await sendCreates(phone, name, 15);
    for (let round = 1; round <= 6; round++) {
      await upstream.received(({ method }) => method !== "GET", round * 12);
      await rowsOf(
        gateway.database,
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()`,
      );
    }
    for (const [name, phone] of phones) {
      const results = await phone.settled(40_000);
      expect(linesOf(results), name).toEqual(results.map(() => "applied"));
      expect(createsOf(upstream, phone), name).toEqual(Array.from({ length: 15 }, (_, n) => n));
    }
    expect(await rowsOf(gateway.database, "select 1 from delivery")).toEqual([]);
  });
});

async function sendCreates(phone: Phone, entity: CapabilityClass, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    phone.add({ op: "create", entity, recordId: tempId(), data: { by: phone.clientId, n } });
  }
  await phone.send({ wait: 0 });
}

/** What of this phone's was created, in the order in which it took effect. */
function createsOf(upstream: ScriptedUpstream, phone: Phone): number[] {
  return upstream.effects
    .filter(({ op, record = "" }) => op === "create" && record.includes(phone.clientId))
    .map(({ record = "" }) => (JSON.parse(record) as { n: number }).n);
}

async function jobsOf({ environment, database }: TestGateway): Promise<number> {
  if (environment.redisUrl === undefined) return (await rowsOf(database, "select 1 from bullmq.job")).length;
  return await withRedis(environment.redisUrl, async (redis) => (await redis.keys("*replay*:de:*")).length);
}

async function loseJobs({ environment, database }: TestGateway): Promise<void> {
  if (environment.redisUrl === undefined) {
    await rowsOf(database, "delete from bullmq.job");
  } else await withRedis(environment.redisUrl, async (redis) => await redis.flushdb());
}

async function withRedis<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url);
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}
