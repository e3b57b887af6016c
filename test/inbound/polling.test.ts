import { describe, expect, onTestFinished, test, vi } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { polled, stamps } from "./polled.ts";
import { newReader } from "./reader.ts";

const records = (count: number): string[] =>
  Array.from({ length: count }, (_, n) => JSON.stringify({ id: n + 1, n: 0 }));

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
  test("what others make, change and delete in the primary reaches the readers, page by page", async () => {
    await using upstream = await startScriptedUpstream({ ...stamps, pages: { cap: 7 } });
    upstream.seed("activities", records(30));
    const poll = { sweepEveryMs: 500 };
    await using gateway = await startGateway({ queues, upstreams: polled(upstream.url, { poll }) });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 30);
    upstream.change("activities", "3", '{"n":1}');
    upstream.change("activities", "17", null);
    upstream.seed("activities", ['{"id":31,"n":0}']);
    await reader.until(() => reader.held.get("activity/3")?.data?.["n"] === 1);
    await reader.until(() => reader.held.has("activity/31") && !reader.held.has("activity/17"));
    expect(reader.held.size).toBe(30);
    expect(reader.told.filter(({ id }) => id === "5")).toHaveLength(1);
  });
});

test(
  "what is deleted and what the list does not stamp is found by the sweep alone",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream(stamps);
    upstream.seed("activities", records(5));
    const entity = { list: { page: "page", size: "size" } };
    await using gateway = await startGateway({ upstreams: polled(upstream.url, { entity }) });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 5);
    upstream.change("activities", "2", null);
    upstream.change("activities", "4", '{"n":4}');
    await reader.until(
      () => !reader.held.has("activity/2") && reader.held.get("activity/4")?.data?.["n"] === 4,
    );
  },
);

test(
  "who sees a record by other scopes in the configuration is told it, who does no more is told to drop it",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream(stamps);
    upstream.seed("activities", ['{"id":1,"mentor":"kari"}', '{"id":2,"mentor":"ola"}']);
    const withScopes = (...scopes: string[]) => ({
      upstreams: polled(upstream.url, { poll: { sweepEveryMs: 200 }, entity: { scopes } }),
    });
    const database = await createTestDatabase();
    onTestFinished(async () => await database.drop());
    const before = await startGateway({ database, ...withScopes("org") });
    const reader = newReader(before.as({ sub: "kari" }));
    await reader.until(() => reader.held.size === 2);
    await before.close();
    await using gateway = await startGateway({
      database,
      ...withScopes("user:{/mentor}", "group:{/mentor}"),
    });
    const [kari, ola] = [{ sub: "kari" }, { sub: "somebody", groups: ["ola"] }];
    const [hers, his] = [newReader(gateway.as(kari)), newReader(gateway.as(ola))];
    await his.until(() => his.held.has("activity/2") && !his.held.has("activity/1"));
    await hers.until(() => hers.held.has("activity/1") && !hers.held.has("activity/2"));
    expect(hers.told.at(-1)).not.toMatchObject({ type: "upsert", id: "2" });
    // Nobody has changed it.
    expect(hers.held.get("activity/1")?.version).toBe(reader.held.get("activity/1")?.version);
  },
);

test("a list that lacks most of what is known deletes nothing", { timeout: 60_000 }, async () => {
  await using upstream = await startScriptedUpstream(stamps);
  upstream.seed("activities", records(30));
  const poll = { sweepEveryMs: 200 };
  await using gateway = await startGateway({ upstreams: polled(upstream.url, { poll }) });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 30);
  const isList = { method: "GET", path: /^\/activities\?/ };
  const heal = upstream.always(isList, faults.status(200, { body: "[]" }));
  await expect
    .poll(() => gateway.log.filter((line) => line.includes("the list is in doubt")).length, {
      timeout: 20_000,
    })
    .toBeGreaterThan(1);
  heal();
  upstream.change("activities", "1", '{"n":1}');
  await reader.until(() => reader.held.get("activity/1")?.data?.["n"] === 1);
  expect(reader.held.size).toBe(30);
});

test("a record that a shifted page has left out is not taken for deleted", { timeout: 60_000 }, async () => {
  await using upstream = await startScriptedUpstream(stamps);
  upstream.seed("activities", records(3));
  const poll = { sweepEveryMs: 200 };
  await using gateway = await startGateway({ upstreams: polled(upstream.url, { poll }) });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 3);
  const shorter = faults.status(200, { body: `[${upstream.records("activities").slice(0, 2).join(",")}]` });
  const heal = upstream.always({ method: "GET", path: /^\/activities\?(?!.*page=[2-9])/ }, shorter);
  await upstream.received({ method: "GET", path: "/activities/3" }, 2);
  heal();
  upstream.change("activities", "3", '{"n":1}');
  await reader.until(() => reader.held.get("activity/3")?.data?.["n"] === 1);
  expect(reader.told.filter(({ type }) => type === "delete")).toEqual([]);
});

test(
  "what others change at once after a phone is told, however far the worker's clock is behind",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream(stamps);
    await using gateway = await startGateway({ upstreams: polled(upstream.url) });
    const reader = newReader(gateway.as());
    const now = Date.now.bind(Date);
    vi.spyOn(Date, "now").mockImplementation(() => now() - 5 * 3_600_000);
    onTestFinished(() => void vi.restoreAllMocks());
    const phone = newPhone(gateway);
    phone.add({ op: "create", recordId: tempId(), data: { n: 0 } });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    upstream.change("activities", "1", '{"n":1}');
    await reader.until(() => reader.held.get("activity/1")?.data?.["n"] === 1);
  },
);

test("a phone's change that was based on what others have changed since is a conflict, and theirs stands", async () => {
  await using upstream = await startScriptedUpstream(stamps);
  upstream.seed("activities", records(1));
  await using gateway = await startGateway({ upstreams: polled(upstream.url) });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 1);
  const seen = reader.held.get("activity/1");
  upstream.change("activities", "1", '{"n":7}');
  await reader.until(() => reader.held.get("activity/1")?.data?.["n"] === 7);
  const phone = newPhone(gateway);
  phone.add({ op: "update", recordId: "1", baseVersion: seen?.version, data: { n: 1 } });
  expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
  expect(upstream.effects).toEqual([]);
});

test(
  "an upstream that is away is asked again when it is back, and goes on where it stood",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream({ ...stamps, pages: { cap: 2 } });
    upstream.seed("activities", records(10));
    upstream.script({ path: /^\/activities\?.*page=3/ }, faults.status(500), faults.loseReply());
    const circuit = { failures: 50, cooldownMs: 50 };
    await using gateway = await startGateway({ upstreams: polled(upstream.url, { upstream: { circuit } }) });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 10);
    const first = upstream.requests.filter(({ path }) => path.startsWith("/activities?page=1"));
    expect(first).toHaveLength(1);
  },
);

test(
  "a round that another process began is gone on with, and nothing is told twice",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream({ ...stamps, pages: { cap: 3 } });
    upstream.seed("activities", records(40));
    const gate = Promise.withResolvers<void>();
    upstream.script({ path: /^\/activities\?.*page=5/ }, faults.hold(gate.promise));
    await using gateway = await startGateway({ upstreams: polled(upstream.url) });
    await upstream.received({ path: /^\/activities\?.*page=5/ });
    await using another = await gateway.another();
    await rowsOf(gateway.database, "update inbound set lease_until = now() - interval '1 second'");
    const reader = newReader(another.as());
    await reader.until(() => reader.held.size === 40);
    gate.resolve();
    await upstream.received({ path: /^\/activities\?.*since=/ }, 2);
    await reader.until(() => true);
    expect(reader.told).toHaveLength(40);
  },
);

test("a snapshot waits until the primary's records were read once", { timeout: 60_000 }, async () => {
  await using upstream = await startScriptedUpstream(stamps);
  upstream.seed("activities", records(3));
  const gate = Promise.withResolvers<void>();
  upstream.script({ path: /^\/activities\?page=1/ }, faults.hold(gate.promise));
  await using gateway = await startGateway({ upstreams: polled(upstream.url) });
  const api = gateway.as();
  const early = await api.get("/v1/snapshot");
  expect(early).toMatchObject({ status: 503, body: { type: "urn:tidegate:problem:not-ready" } });
  gate.resolve();
  await expect.poll(async () => (await api.get("/v1/snapshot")).status, { timeout: 20_000 }).toBe(200);
  const { body } = await api.get("/v1/snapshot");
  expect(body.records).toHaveLength(3);
});

test(
  "what a lane makes and the poll sees meanwhile is one record with its temp ID",
  { timeout: 60_000 },
  async () => {
    await using upstream = await startScriptedUpstream(stamps);
    await using gateway = await startGateway({ upstreams: polled(upstream.url) });
    const phone = newPhone(gateway);
    const mine = newReader(phone.api, phone.clientId);
    for (let n = 0; n < 20; n++) {
      const recordId = tempId();
      phone.add({ op: "create", recordId, data: { n } });
      phone.add({ op: "update", recordId, data: { again: n } });
    }
    await phone.send({ wait: 0 });
    expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
    await mine.until(() => mine.held.size === 20);
    expect([...mine.held.values()].filter((change) => change.tempId === undefined)).toEqual([]);
  },
);

test("a record whose ID can't be kept keeps no other from being seen", { timeout: 60_000 }, async () => {
  await using upstream = await startScriptedUpstream(stamps);
  upstream.seed("activities", [...records(2), '{"id":"a\\u0000b"}']);
  await using gateway = await startGateway({ upstreams: polled(upstream.url) });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 2);
});
