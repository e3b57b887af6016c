import { randomUUID } from "node:crypto";

import { Client } from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";

import { asSuperuser } from "../fixtures/postgres-server.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { startPostgresProxy, type PostgresProxy } from "../fixtures/postgres-proxy.ts";
import { crm } from "../fixtures/crm.ts";
import {
  startGateway,
  tempId,
  type GatewayOptions,
  type TestGateway,
  type TestUser,
} from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
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

/** So rarely that no test lives to see it: what arrives was told. */
const never = { lookEveryMs: 60_000 };

async function start(options: Partial<GatewayOptions>): Promise<TestGateway> {
  const gateway = await startGateway({
    database,
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}"] } }),
    otherUpstreams: crm(upstream.url),
    follow: never,
    ...options,
  });
  open.push(gateway);
  return gateway;
}

/** An api and a worker, with the api's way to the database in our hands. */
async function startApart(follow: object = never): Promise<{
  api: TestGateway;
  worker: TestGateway;
  way: PostgresProxy;
}> {
  const way = await startPostgresProxy(database.serviceUrl);
  open.push(way);
  const worker = await start({ role: "worker", follow });
  const api = await start({ role: "api", follow, database: { ...database, serviceUrl: way.url } });
  await whenListening();
  return { api, worker, way };
}

async function whenListening(): Promise<void> {
  await vi.waitFor(async () => expect(await listeners()).toHaveLength(1), { timeout: 20_000 });
}

async function listeners(): Promise<number[]> {
  return await asSuperuser(database.superuserUrl, async (client) => {
    const { rows } = await client.query<{ pid: number }>(
      "select pid from pg_stat_activity where datname = current_database() and application_name = 'tidegate-hints'",
    );
    return rows.map(({ pid }) => pid);
  });
}

async function isListening({ url }: TestGateway): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^tidegate_hints_listening (\d)$/m.exec(text)?.[1]);
}

/** Waits for the changes behind what is there. */
async function waiting(gateway: TestGateway, user: TestUser = {}, clientId = randomUUID()) {
  const api = gateway.as(user);
  const path = `/v1/changes?clientId=${clientId}`;
  let cursor = "";
  for (let more = true; more;) {
    const { body } = await api.get(cursor ? `${path}&cursor=${cursor}` : path);
    ({ more, cursor } = body);
  }
  return { answer: api.get(`${path}&cursor=${cursor}&wait=25`) };
}

async function create(gateway: TestGateway, { wait = 20, mentor = "kari" } = {}) {
  const outbox = newOutbox();
  outbox.add({ op: "create", recordId: tempId(), data: { mentor } });
  return await gateway.as().upload(outbox.batch(), { wait });
}

const slow = { timeout: 60_000 };

describe("a change that another process wrote", () => {
  test("ends a long poll at once, by word alone", slow, async () => {
    const { api } = await startApart();
    const { answer } = await waiting(api);
    const uploaded = await create(api);
    expect(uploaded.body.results).toMatchObject([{ status: "applied" }]);
    const { body } = await answer;
    expect(body.changes).toMatchObject([{ type: "upsert", id: uploaded.body.results[0].recordId }]);
  });

  test("arrives by looking when no word of it gets through", slow, async () => {
    const { api, way } = await startApart({ lookEveryMs: 500 });
    way.cut("tidegate-hints");
    const { answer } = await waiting(api);
    await create(api, { wait: 0 });
    expect((await answer).body.changes).toHaveLength(1);
    way.heal();
  });

  test(
    "is heard of again after the listening connection was ended, and what was missed meanwhile is found",
    slow,
    async () => {
      const { api, way } = await startApart();
      const { answer } = await waiting(api);
      const [pid] = await listeners();
      way.cut("tidegate-hints");
      await vi.waitFor(async () => expect(await listeners()).toEqual([]), { timeout: 20_000 });
      await vi.waitFor(async () => expect(await isListening(api)).toBe(0), { timeout: 20_000 });
      const other = await start({ role: "api" });
      const { body } = await create(other);
      expect(body.results).toMatchObject([{ status: "applied" }]);
      way.heal();
      expect((await answer).body.changes).toHaveLength(1);
      const [anotherPid] = await listeners();
      expect(await isListening(api)).toBe(1);
      expect(anotherPid).not.toBe(pid);
      await asSuperuser(database.superuserUrl, (client) =>
        client.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tidegate-hints' and datname = current_database()",
        ),
      );
      const next = await waiting(api);
      await create(api);
      expect((await next.answer).body.changes).toHaveLength(1);
    },
  );
});

describe("what is told", () => {
  test("names nobody, comes after the commit, and once for what was written together", slow, async () => {
    const gateway = await start({});
    const listener = new Client({ connectionString: database.serviceUrl });
    await listener.connect();
    const payloads: string[] = [];
    listener.on("notification", ({ payload = "" }) => payloads.push(payload));
    await listener.query("listen tidegate_hints");
    const outbox = newOutbox();
    for (let n = 0; n < 50; n++) outbox.add({ op: "create", recordId: tempId(), data: { mentor: "frida" } });
    await gateway.as().upload(outbox.batch());
    await vi.waitFor(() => expect(payloads).not.toEqual([]), { timeout: 20_000 });
    await listener.end();
    for (const payload of payloads) {
      expect(payload).toMatch(/^[0-9a-f-]{36}(,[A-Za-z0-9_-]{8})+$/);
      expect(payload).not.toContain(outbox.clientId);
    }
    expect(payloads.length).toBeLessThan(50);
  });

  test("wakes no reader of another scope, client or tenant", slow, async () => {
    const { api, way } = await startApart();
    const other = await start({ role: "api" });
    const bystanders = Array.from({ length: 20 }, (_, n) =>
      waiting(api, n % 2 ? { sub: `mentor-${n}` } : { sub: "frida", iss: "other" }),
    );
    await Promise.all(bystanders);
    const { answer } = await waiting(api, { sub: "frida" });
    const before = way.statements("tidegate");
    await create(other, { mentor: "frida" });
    expect((await answer).body.changes).toHaveLength(1);
    // Besides this one pull there are only the looks at which database it is.
    expect(way.statements("tidegate") - before).toBeLessThan(bystanders.length);
  });
});
