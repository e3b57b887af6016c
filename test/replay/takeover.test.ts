import { describe, expect, test, vi } from "vitest";

import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";
import { startWorkerProcess } from "./worker-process.ts";

const never = new Promise<void>(() => undefined);
/** A lease is three calls long, and at least five seconds; then another worker has to notice. */
const takeoverMs = 25_000;

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test("a worker that is killed between its calls and their answers leaves one effect each, in order", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using api = await startApi(queues, upstream);
    await using victim = await startWorkerProcess(api);
    const phones = classes.map((name) => [name, newPhone(api)] as const);
    upstream.script(isCreate(0), ...classes.map(() => faults.hold(never, { effect: true })));
    for (const [name, phone] of phones) await sendCreates(phone, name, 3);
    await upstream.received(isCreate(0), classes.length);
    victim.signal("SIGKILL");
    expect(await victim.exited).toBeNull();
    await api.another("worker");
    for (const [name, phone] of phones) {
      const expected = name === "opaque" ? ["parked upstream-unclear", "applied", "applied"] : allApplied(3);
      expect(linesOf(await phone.settled(takeoverMs)), name).toEqual(expected);
      expect(createsAt(upstream, name), name).toEqual([0, 1, 2]);
    }
    expect(await rowsOf(api.database, "select 1 from delivery where state <> 'parked'")).toEqual([]);
  });

  test("a worker that was stopped for longer than its lease sends and writes nothing when it goes on", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using api = await startApi(queues, upstream, { concurrency: 1, timeoutMs: 3_000 });
    await using victim = await startWorkerProcess(api);
    const [sent, waiting] = [newPhone(api), newPhone(api)];
    const gate = Promise.withResolvers<void>();
    upstream.script(isCreate(0), faults.hold(gate.promise, { effect: true }));
    await sendCreates(sent, "idempotency-key", 4);
    await upstream.received(isCreate(0));
    // This one's call waits in the stopped process for the place of the other.
    await sendCreates(waiting, "upsert", 4);
    const lanes = "select 1 from lane where lease_until is not null";
    await vi.waitFor(async () => expect(await rowsOf(api.database, lanes)).toHaveLength(2), {
      timeout: 20_000,
    });
    victim.signal("SIGSTOP");
    expect(upstream.requests).toHaveLength(1);
    await api.another("worker");
    expect(linesOf(await sent.settled(takeoverMs))).toEqual(allApplied(4));
    expect(linesOf(await waiting.settled(takeoverMs))).toEqual(allApplied(4));
    const before = { requests: upstream.requests.length, rows: await allOf(api) };
    gate.resolve();
    victim.signal("SIGCONT");
    await victim.logged("the lane was taken over");
    // It is told to end, and finishes whatever it still means to do.
    victim.signal("SIGTERM");
    expect(await victim.exited).toBe(0);
    expect({ requests: upstream.requests.length, rows: await allOf(api) }).toEqual(before);
    expect(createsAt(upstream, "idempotency-key")).toEqual([0, 1, 2, 3]);
    expect(createsAt(upstream, "upsert")).toEqual([0, 1, 2, 3]);
  });

  test("a worker that is told to stop gives its lanes back, and the next one goes on where it was", async () => {
    await using upstream = await startScriptedUpstream({ ...storeOptions, latencyMs: 5 });
    await using api = await startApi(queues, upstream);
    await using first = await startWorkerProcess(api);
    const phones = Array.from({ length: 8 }, () => newPhone(api));
    await Promise.all(phones.map(async (phone) => await sendCreates(phone, "conditional", 40)));
    await upstream.received({ method: "PUT" }, 60);
    first.signal("SIGTERM");
    expect(await first.exited).toBe(0);
    expect(await rowsOf(api.database, "select 1 from lane where lease_until is not null")).toEqual([]);
    const sentBefore = upstream.requests.length;
    expect(sentBefore).toBeLessThan(8 * 40);
    await api.another("worker");
    for (const phone of phones) {
      expect(linesOf(await phone.settled())).toEqual(allApplied(40));
      const its = upstream.effects.filter(({ record = "" }) => record.includes(phone.clientId));
      expect(its.map(({ record = "" }) => (JSON.parse(record) as { n: number }).n)).toEqual(numbers(40));
    }
    expect(upstream.requests).toHaveLength(8 * 40);
  });
});

async function startApi(
  queues: "postgres" | "redis",
  { url }: ScriptedUpstream,
  rest: object = {},
): Promise<TestGateway> {
  return await startGateway({
    queues,
    role: "api",
    upstreams: capabilities(url, { timeoutMs: 1_000, ...rest }),
  });
}

/** Uploads without waiting: nobody may be there to replay. */
async function sendCreates(phone: Phone, entity: CapabilityClass, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    phone.add({ op: "create", entity, recordId: tempId(), data: { by: phone.clientId, n } });
  }
  const { status } = await phone.send({ wait: 0 });
  expect(status).toBe(202);
}

function isCreate(n: number): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method !== "GET" && body.toString().includes(`"n":${n}`);
}

/** What was created there, in the order in which it took effect. */
function createsAt(upstream: ScriptedUpstream, collection: string): number[] {
  const creates = upstream.effects.filter(
    (effect) => effect.collection === collection && effect.op === "create",
  );
  return creates.map(({ record = "" }) => (JSON.parse(record) as { n: number }).n);
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
const allApplied = (count: number): string[] => numbers(count).map(() => "applied");

/** Everything that a late writer could have touched. */
async function allOf({ database }: TestGateway): Promise<unknown> {
  const tables = ["lane", "delivery", "mutation_key", "record", "id_map", "feed", "feed_head"];
  return await Promise.all(
    tables.map(async (table) => await rowsOf(database, `select * from ${table} t order by t::text`)),
  );
}
