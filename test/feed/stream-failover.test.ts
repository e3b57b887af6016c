import { randomUUID } from "node:crypto";

import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";

import { recoverDatabase } from "../../src/platform/recovery.ts";
import { crm } from "../fixtures/crm.ts";
import { openStream, type EventStream, type StreamEvent } from "../fixtures/event-stream.ts";
import { startGateway, tempId, type GatewayOptions, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { startPostgresProxy } from "../fixtures/postgres-proxy.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let database: TestDatabase;
const open: AsyncDisposable[] = [];

beforeAll(async () => {
  [upstream, database] = await Promise.all([startScriptedUpstream(), createTestDatabase()]);
});
afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one[Symbol.asyncDispose]();
});
afterAll(async () => {
  await upstream.stop();
  await database.drop();
});

async function start(options: Partial<GatewayOptions>): Promise<TestGateway> {
  const upstreams = crm(upstream.url, { entity: { scopes: ["user:{/mentor}"] } });
  const gateway = await startGateway({ database, upstreams, follow: { lookEveryMs: 60_000 }, ...options });
  open.push(gateway);
  return gateway;
}

const slow = { timeout: 90_000 };

/** Uploads records of a user one after the other, each with its `n`. */
async function writeAll(gateway: TestGateway, sub: string, count: number): Promise<void> {
  const outbox = newOutbox();
  for (let n = 0; n < count; n++) {
    outbox.add({ op: "create", recordId: tempId(), data: { mentor: sub, n } });
    await gateway.as({ sub }).upload(outbox.batch());
  }
}

function numbers(events: StreamEvent[]): number[] {
  return events.flatMap(({ event, data }) => (event === "change" ? [data.data.n] : []));
}

/** Goes on from where it was, at another process each time, until it has been told of `count` records. */
async function roam(
  gateways: () => TestGateway[],
  sub: string,
  { count, leaveAfter }: { count: number; leaveAfter: (stream: EventStream) => Promise<void> },
): Promise<number[]> {
  const told: number[] = [];
  let lastEventId: string | undefined;
  for (let turn = 0; told.length < count; turn++) {
    const all = gateways();
    const stream = await openStream(
      all[turn % all.length]!,
      { sub },
      lastEventId === undefined ? {} : { lastEventId },
    );
    const isDone = stream.until((events) => told.length + numbers(events).length >= count);
    isDone.catch(() => undefined);
    if (stream.status === 200) await Promise.race([leaveAfter(stream), isDone]);
    stream.break();
    await stream.closed;
    told.push(...numbers(stream.events));
    lastEventId = stream.lastId() ?? lastEventId;
  }
  return told;
}

test(
  "a reader that is broken off in the middle, again and again, and goes on at another process is told of everything once and in order",
  slow,
  async () => {
    await start({ role: "worker" });
    const gateways = [await start({ role: "api" }), await start({ role: "api" })];
    const sub = randomUUID();
    const count = 20;
    const told = roam(() => gateways, sub, {
      count,
      leaveAfter: async (stream) => await stream.until(({ length }) => length >= 3),
    });
    await writeAll(gateways[0]!, sub, count);
    expect(await told).toEqual(Array.from({ length: count }, (_, n) => n));
  },
);

test("no event is lost when processes stop and others start", slow, async () => {
  const writer = await start({});
  let api = await start({ role: "api" });
  const sub = randomUUID();
  const count = 20;
  const told = roam(() => [api], sub, { count, leaveAfter: async (stream) => await stream.closed });
  const writing = writeAll(writer, sub, count);
  for (let restart = 0; restart < 2; restart++) {
    const next = await start({ role: "api" });
    const last = api;
    api = next;
    await last.close();
  }
  await writing;
  expect(await told).toEqual(Array.from({ length: count }, (_, n) => n));
});

test("everything arrives in order when no word from other processes ever gets through", slow, async () => {
  const way = await startPostgresProxy(database.serviceUrl);
  open.push(way);
  way.cut("tidegate-hints");
  await start({ role: "worker" });
  const follow = { lookEveryMs: 300 };
  const api = await start({ role: "api", follow, database: { ...database, serviceUrl: way.url } });
  const sub = randomUUID();
  await using stream = await openStream(api, { sub });
  await writeAll(api, sub, 10);
  await stream.until((events) => numbers(events).length === 10);
  expect(numbers(stream.events)).toEqual(Array.from({ length: 10 }, (_, n) => n));
});

test("a stream outlives that the database is away, and tells what came after", slow, async () => {
  const way = await startPostgresProxy(database.serviceUrl);
  open.push(way);
  const writer = await start({});
  const follow = { lookEveryMs: 300 };
  const api = await start({ role: "api", follow, database: { ...database, serviceUrl: way.url } });
  const sub = randomUUID();
  await using stream = await openStream(api, { sub });
  for (const name of ["tidegate", "tidegate-hints"]) way.cut(name);
  await writeAll(writer, sub, 3);
  await vi.waitFor(() => expect(api.log.join()).toContain("changes could not be looked for"), {
    timeout: 20_000,
  });
  way.heal();
  await stream.until((events) => numbers(events).length === 3);
});

test(
  "after a recovery a stream ends with `cursor-expired`, and its cursor is answered with 410",
  slow,
  async () => {
    const gateway = await start({ follow: { lookEveryMs: 300 } });
    const sub = randomUUID();
    await using stream = await openStream(gateway, { sub });
    await writeAll(gateway, sub, 1);
    await stream.until(({ length }) => length === 1);
    await recoverDatabase(database.ownerUrl, { isMeant: true, isSnapshot: true });
    await stream.closed;
    expect(stream.events.at(-1)).toMatchObject({
      event: "end",
      data: {
        reason: "cursor-expired",
        problem: { type: "urn:tidegate:problem:cursor-expired", status: 410 },
      },
    });
    const lastEventId = stream.lastId() ?? "";
    await vi.waitFor(
      async () => {
        await using again = await openStream(gateway, { sub }, { lastEventId });
        expect(again.status).toBe(410);
      },
      { timeout: 20_000, interval: 50 },
    );
  },
);
