import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { openQueueBackend, type JobQueue, type QueueBackend } from "../../src/platform/queues.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { startPostgresProxy } from "../fixtures/postgres-proxy.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { createTestRedis, queueBackends, type TestRedis } from "../fixtures/redis.ts";

const wake = {
  deduplication: { id: "lane", keepLastIfActive: true },
  attempts: 2 ** 31 - 1,
  backoff: { type: "lane" },
  removeOnComplete: true,
  removeOnFail: true,
};

describe.each(queueBackends())("on %s", (kind) => {
  let database: TestDatabase;
  let redis: TestRedis | undefined;
  let backend: QueueBackend;
  let queue: JobQueue;

  beforeEach(async () => {
    database = await createTestDatabase();
    redis = kind === "redis" ? await createTestRedis() : undefined;
    backend = await openQueueBackend({
      redisUrl: redis?.url,
      databaseUrl: database.serviceUrl,
      onError: () => undefined,
    });
    queue = backend.queue("replay");
  });

  afterEach(async () => {
    await backend.close();
    await redis?.drop();
    await database.drop();
  });

  test("wakes that come while a lane is drained lead to one more drain, and never to two at once", async () => {
    const gate = Promise.withResolvers<void>();
    let [runs, active, activeMax] = [0, 0, 0];
    work(async () => {
      runs += 1;
      active += 1;
      activeMax = Math.max(activeMax, active);
      await gate.promise;
      active -= 1;
    });
    await queue.add("drain", {}, wake);
    await vi.waitFor(() => expect(runs).toBe(1), { timeout: 20_000 });
    for (let i = 0; i < 5; i += 1) await queue.add("drain", {}, wake);
    gate.resolve();
    await vi.waitFor(() => expect(runs).toBe(2), { timeout: 20_000 });
    await untilIdle();
    expect(activeMax).toBe(1);
    expect(runs).toBe(2);
  });

  test("a drain that backs off keeps its place: wakes are absorbed, and a promotion runs it at once", async () => {
    let runs = 0;
    work(async () => {
      runs += 1;
      if (runs === 1) await Promise.reject(new Error("the upstream is away"));
    });
    await queue.add("drain", {}, wake);
    await vi.waitFor(async () => expect(await queue.getDelayedCount()).toBe(1), { timeout: 20_000 });
    await queue.add("drain", {}, wake);
    expect(await queue.getJobCounts()).toMatchObject({ delayed: 1, waiting: 0 });
    const job = await queue.getJob((await queue.getDeduplicationJobId("lane"))!);
    await job?.promote();
    await vi.waitFor(() => expect(runs).toBe(2), { timeout: 20_000 });
  });

  test("queue and worker go on after their connections were broken", async () => {
    let runs = 0;
    work(async () => await Promise.resolve(void (runs += 1)));
    await queue.add("drain", {}, wake);
    await vi.waitFor(() => expect(runs).toBe(1), { timeout: 20_000 });
    // A job whose completion can't be recorded stays active until its lock has expired, and absorbs wakes so long.
    await untilIdle();
    await breakConnections();
    await vi.waitFor(async () => await queue.add("drain", {}, wake), { timeout: 10_000 });
    await vi.waitFor(() => expect(runs).toBe(2), { timeout: 10_000 });
  });

  function work(processor: () => Promise<void>): void {
    const settings = { backoffStrategy: () => 3_600_000 };
    backend.worker("replay", processor, { concurrency: 4, settings });
  }

  async function untilIdle(): Promise<void> {
    await vi.waitFor(async () => expect(await queue.getDeduplicationJobId("lane")).toBeNull(), {
      timeout: 20_000,
    });
  }

  async function breakConnections(): Promise<void> {
    if (redis) return await redis.breakConnections();
    await asSuperuser(database.superuserUrl, async (client) => {
      await client.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
      );
    });
  }
});

test("what Postgres does not answer when it is opened fails the start, and is not asked without end", async () => {
  const database = await createTestDatabase();
  await using proxy = await startPostgresProxy(database.serviceUrl);
  let errors = 0;
  const onError = (): void => {
    errors += 1;
    // A worker that asks without end lets nothing else have its turn, this test's timeout included.
    if (errors === 1_000) void backend.close();
  };
  const backend = await openQueueBackend({ redisUrl: undefined, databaseUrl: proxy.url, onError });
  proxy.cut("tidegate-queues");
  backend.worker("replay", () => Promise.resolve(), { concurrency: 4 });
  await vi.waitFor(() => expect(errors).toBeGreaterThan(0), { timeout: 20_000 });
  await expect(backend.ready()).rejects.toMatchObject({ code: "database-unreachable" });
  expect(errors).toBeLessThan(100);
  await backend.close();
  await database.drop();
});

test.for([
  ["redis-unreachable", { redisUrl: "redis://:hush@127.0.0.1:1", databaseUrl: "" }],
  [
    "database-unreachable",
    { redisUrl: undefined, databaseUrl: "postgres://tidegate:hush@127.0.0.1:1/tidegate" },
  ],
] as const)("an absent backend is named at the start, without its password: %s", async ([code, urls]) => {
  const error: unknown = await openQueueBackend({ ...urls, onError: () => undefined }).catch(
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ code, message: expect.stringContaining("127.0.0.1:1") });
  expect(JSON.stringify([error, String(error)])).not.toContain("hush");
});
