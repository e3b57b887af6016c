import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox, type Batch } from "../fixtures/outbox.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { startPostgresProxy, type PostgresProxy } from "../fixtures/postgres-proxy.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

const service = "tidegate";

let upstream: ScriptedUpstream;
let database: TestDatabase;
let proxy: PostgresProxy;
/** Takes uploads, and replays nothing. */
let gateway: TestGateway;
let kari: Api;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  database = await createTestDatabase();
  proxy = await startPostgresProxy(database.serviceUrl);
  gateway = await startGateway({
    role: "api",
    upstreams: crm(upstream.url),
    database: { ...database, serviceUrl: proxy.url },
  });
  kari = gateway.as();
});
afterAll(async () => {
  await gateway.close();
  await proxy[Symbol.asyncDispose]();
  await database.drop();
  await upstream.stop();
});

function batchOf(size: number): Batch {
  const outbox = newOutbox();
  for (let index = 0; index < size; index++) {
    const data = index % 10 === 9 ? "not a record" : { note: randomUUID() };
    outbox.add({ op: "create", recordId: tempId(), data });
  }
  return outbox.batch();
}

async function statementsOf(batch: Batch): Promise<number> {
  const before = proxy.statements(service);
  const { status } = await kari.upload(batch, { wait: 0 });
  expect(status).toBe(batch.mutations.length === 0 ? 200 : 202);
  return proxy.statements(service) - before;
}

/** Of several uploads: a look at the database's identity, which comes every now and then, may fall into one. */
async function fewestStatementsOf(batches: Batch[]): Promise<number> {
  const counts: number[] = [];
  for (const batch of batches) counts.push(await statementsOf(batch));
  return Math.min(...counts);
}

test("a batch takes the same number of statements whatever its size", async () => {
  await statementsOf(batchOf(1));
  const sizes = [1, 50, 500];
  const fresh: number[] = [];
  const repeated: number[] = [];
  for (const size of sizes) {
    const batches = Array.from({ length: 4 }, () => batchOf(size));
    fresh.push(await fewestStatementsOf(batches));
    repeated.push(await fewestStatementsOf(batches));
  }
  expect(fresh).toEqual(sizes.map(() => fresh[0]));
  // begin, tenant, append, commit
  expect(fresh[0]).toBeLessThanOrEqual(4);
  expect(repeated).toEqual(sizes.map(() => repeated[0]));
});

describe("what is acknowledged is durable, and what is durable is acknowledged:", () => {
  test("a database that goes away while outcomes are waited for does not fail the upload", async () => {
    const batch = batchOf(2);
    const before = proxy.statements(service);
    const uploading = kari.upload({ ...batch, cursor: "not one" }, { wait: 20 });
    await expect.poll(() => proxy.statements(service)).toBeGreaterThan(before + 8);
    proxy.cut(service);
    const { status, body } = await uploading;
    proxy.heal();
    expect([status, body.ackedSeq]).toEqual([202, 2]);
    expect(body.results.map((result: { status: string }) => result.status)).toEqual(["pending", "pending"]);
    const again = await kari.upload(batch, { wait: 0 });
    expect(again.body).toMatchObject({ ackedSeq: 2, results: body.results });
  });

  test("a database that is away takes nothing and says so", async () => {
    const batch = batchOf(1);
    proxy.cut(service);
    const refused = await kari.upload(batch);
    proxy.heal();
    expect([refused.status, refused.headers.has("retry-after")]).toEqual([503, true]);
    await expect.poll(async () => (await kari.upload({ ...batch, mutations: [] })).status).toBe(200);
    expect((await kari.upload({ ...batch, mutations: [] })).body.ackedSeq).toBe(0);
  });

  test("changes that can't be read do not fail the upload", async () => {
    const { status, body } = await kari.upload({ ...batchOf(1), cursor: "damaged" }, { wait: 0 });
    expect([status, body.cursorProblem.type]).toEqual([202, "urn:tidegate:problem:cursor-expired"]);
    expect(body).not.toHaveProperty("changes");
  });

  test.each([5, [], {}, true, ""])("nor does a cursor that is none: %j", async (cursor) => {
    const { status, body } = await kari.upload({ ...batchOf(1), cursor }, { wait: 0 });
    expect([status, body.cursorProblem.type]).toEqual([202, "urn:tidegate:problem:cursor-expired"]);
  });
});

/** The Preference-Applied of an answer to this Prefer. */
async function applied(prefer: string | undefined): Promise<string | null> {
  const headers: Record<string, string> = prefer === undefined ? {} : { prefer };
  const body = { clientId: randomUUID(), previousSeq: 0, mutations: [] };
  const { status, headers: answered } = await kari.post("/v1/batches", body, { headers });
  expect(status).toBe(200);
  return answered.get("preference-applied");
}

describe("Prefer: wait", () => {
  test.each([
    "wait=-1",
    "wait=soon",
    "wait",
    "wait=",
    "wait=1.5",
    "wait=99999999999999999999",
    "respond-async",
    "",
  ])("is ignored when it makes no sense: %s", async (prefer) => expect(await applied(prefer)).toBeNull());

  test("is answered with what was applied: at most 25 seconds", async () => {
    const asked = ["wait=0", "wait=25", "wait=26", "wait=999999999", "respond-async, WAIT = 7; x=y"];
    expect(await Promise.all(asked.map(applied))).toEqual([
      "wait=0",
      "wait=25",
      "wait=25",
      "wait=25",
      "wait=7",
    ]);
    expect(await applied(undefined)).toBeNull();
  });

  test("ends when the seconds are over, with what is still pending", async () => {
    const { status, body, headers } = await kari.upload(batchOf(1), { wait: 1 });
    expect([status, headers.get("preference-applied")]).toEqual([202, "wait=1"]);
    expect(body.results).toMatchObject([{ status: "pending", blockedBy: null }]);
  });

  test("ends when another process writes the outcome", async () => {
    const uploading = kari.upload(batchOf(3), { wait: 25 });
    await gateway.another("worker");
    const { status, body } = await uploading;
    expect(status).toBe(200);
    expect(body.results.map((result: { status: string }) => result.status)).toEqual([
      "applied",
      "applied",
      "applied",
    ]);
  });
});

test("a process that stops answers what it has taken instead of waiting on", async () => {
  const other = await startGateway({ role: "api", upstreams: crm(upstream.url) });
  const batch = batchOf(1);
  const uploading = other.as().upload(batch, { wait: 25 });
  await expect.poll(() => other.log.length > 0 && taken(other, batch)).toBe(true);
  await other.close();
  const { status, body } = await uploading;
  expect([status, body.ackedSeq]).toEqual([202, 1]);
});

async function taken({ as }: TestGateway, { clientId }: Batch): Promise<boolean> {
  return (await as().get(`/v1/mutations?clientId=${clientId}`)).body.results.length === 1;
}
