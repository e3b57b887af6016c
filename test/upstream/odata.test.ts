import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { startODataUpstream, type ODataUpstream } from "../fixtures/odata-upstream.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newReader } from "../inbound/reader.ts";
import { linesOf, newPhone, toLine } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";

const erp = (baseUrl: string, entity: object = {}, rest: object = {}): object => ({
  erp: {
    role: "primary",
    kind: "odata",
    baseUrl,
    retry: { baseMs: 10, capMs: 50 },
    circuit: { failures: 50, cooldownMs: 50 },
    ...rest,
    entities: {
      activity: {
        path: "/Activities",
        id: "/Id",
        keyType: "number",
        reference: "/externalRef",
        create: { class: "lookup" },
        update: { class: "conditional" },
        delete: { class: "conditional" },
        fromUpstream: "{ 'minutes': minutes, 'note': note }",
        ...entity,
      },
    },
  },
});

const rows = ({ service }: ODataUpstream): unknown[] =>
  service.texts().map((text) => {
    const { externalRef: _, ...row } = JSON.parse(text) as Record<string, unknown>;
    return row;
  });

test.each([
  ["as a whole", false],
  ["by 204 and OData-EntityId", true],
] as const)(
  "an outbox reaches an OData service that answers %s, also when replies are lost",
  async (_, minimal) => {
    await using system = await startODataUpstream({ keyType: "number", minimal });
    await using gateway = await startGateway({ upstreams: erp(system.url) });
    const phone = newPhone(gateway);
    const [kept, gone] = [tempId(), tempId()];
    phone.add({ op: "create", recordId: kept, data: { minutes: 45, note: "O'Neil & æ" } });
    phone.add({ op: "create", recordId: gone, data: { minutes: 1 } });
    system.script({ method: "POST" }, faults.loseReply());
    await phone.send();
    expect(linesOf(await phone.settled())).toEqual(["applied", "applied"]);
    phone.add({ op: "update", recordId: kept, data: { minutes: 50 } });
    phone.add({ op: "update", recordId: kept, data: { note: null } });
    phone.add({ op: "delete", recordId: gone, data: undefined });
    system.script({ method: "PATCH" }, faults.loseReply());
    system.script({ method: "DELETE" }, faults.loseReply());
    await phone.send();
    const results = await phone.settled();
    expect(linesOf(results)).toEqual(Array.from({ length: 5 }, () => "applied"));
    expect(results[0]).toMatchObject({ recordId: "1" });
    expect(rows(system)).toEqual([{ Id: 1, minutes: 50 }]);
    expect(system.answered.filter((line) => line === "POST 201" || line === "POST 204")).toHaveLength(2);
  },
);

test("a record that a create's answer does not name is found by our reference", async () => {
  await using system = await startODataUpstream({ keyType: "number" });
  await using gateway = await startGateway({ upstreams: erp(system.url, { create: { class: "opaque" } }) });
  const phone = newPhone(gateway);
  phone.add({ op: "create", recordId: tempId(), data: { minutes: 45 } });
  system.script({ method: "POST" }, faults.status(204, { effect: true }));
  await phone.send();
  expect(await phone.settled()).toMatchObject([{ status: "applied", recordId: "1" }]);
});

describe("what somebody else changed meanwhile, refused by If-Match", () => {
  test.each([
    ["reject", "conflict", { minutes: 45, note: "theirs" }, false],
    ["server-wins", "conflict", { minutes: 45, note: "theirs" }, false],
    ["client-wins", "applied", { minutes: 50, note: "theirs" }, false],
    ["client-wins", "applied", { minutes: 50, note: "theirs" }, true],
    ["merge", "applied", { minutes: 50, note: "theirs" }, false],
    ["merge", "applied", { minutes: 50, note: "theirs" }, true],
  ] as const)(
    "under %s is %s, and readers see %j; updates answered by 204: %s",
    async (conflict, status, now, minimal) => {
      await using system = await startODataUpstream({ keyType: "number", minimal });
      await using gateway = await startGateway({ upstreams: erp(system.url, { conflict }) });
      const phone = newPhone(gateway);
      const recordId = tempId();
      phone.add({ op: "create", recordId, data: { minutes: 45, note: "lunch" } });
      const [created] = await phone.replay();
      system.service.change("1", '{"note":"theirs"}');
      const { version: baseVersion } = created!;
      phone.add({
        op: "update",
        recordId,
        baseVersion: baseVersion!,
        base: { minutes: 45 },
        data: { minutes: 50 },
      });
      const [result] = await phone.replay();
      expect(result).toMatchObject({ status });
      if (status === "conflict") expect(result!.current).toMatchObject({ data: now });
      expect(system.answered).toContain("PATCH 412");
      expect(rows(system)).toEqual([{ Id: 1, ...now }]);
      const reader = newReader(phone.api, phone.clientId);
      await reader.until(() => reader.told.filter(({ type }) => type === "outcome").length === 2);
      expect(reader.held.get("activity/1")).toMatchObject({ data: now });
    },
  );

  test("a merge of what both sides changed is a conflict, and a delete of it too", async () => {
    await using system = await startODataUpstream({ keyType: "number" });
    await using gateway = await startGateway({ upstreams: erp(system.url, { conflict: "merge" }) });
    const phone = newPhone(gateway);
    const recordId = tempId();
    phone.add({ op: "create", recordId, data: { minutes: 45, note: "lunch" } });
    const [created] = await phone.replay();
    system.service.change("1", '{"minutes":99}');
    const based = { recordId, baseVersion: created!.version!, base: { minutes: 45 } };
    phone.add({ op: "update", ...based, data: { minutes: 50 } });
    phone.add({ op: "delete", recordId, baseVersion: created!.version!, data: undefined });
    const results = await phone.replay();
    expect(results.map(({ status }) => status)).toEqual(["conflict", "conflict"]);
    expect(results[0]!.current).toMatchObject({ data: { minutes: 99 } });
    expect(rows(system)).toMatchObject([{ Id: 1, minutes: 99 }]);
  });

  test("a change of what others have deleted is a conflict, and does not bring it back", async () => {
    await using system = await startODataUpstream({ keyType: "number" });
    await using gateway = await startGateway({ upstreams: erp(system.url, { conflict: "client-wins" }) });
    const phone = newPhone(gateway);
    const recordId = tempId();
    phone.add({ op: "create", recordId, data: { minutes: 45 } });
    await phone.replay();
    system.service.change("1", null);
    phone.add({ op: "update", recordId, data: { minutes: 50 } });
    const [result] = await phone.replay();
    expect(result).toMatchObject({ status: "conflict", current: { deleted: true } });
    expect(rows(system)).toEqual([]);
  });
});

test("what the service refuses is the client's, and what it lacks is for a person", async () => {
  await using system = await startODataUpstream({ keyType: "number" });
  await using gateway = await startGateway({ upstreams: erp(system.url) });
  const phone = newPhone(gateway);
  system.script({ method: "POST" }, faults.status(400), faults.status(428), faults.status(501));
  for (let n = 0; n < 3; n++) phone.add({ op: "create", recordId: tempId(), data: { minutes: n } });
  const lines = (await phone.replay()).map(toLine);
  expect(lines).toEqual([
    "rejected upstream-rejected",
    expect.stringMatching(/^parked/),
    expect.stringMatching(/^parked/),
  ]);
  expect(rows(system)).toEqual([]);
});

const polled = { poll: { everyMs: 100 } };
const whole = /^\/odata\/Activities$/;

describe.each(["4.0", "4.01"] as const)(
  "a service of version %s that keeps track of its changes",
  (tracks) => {
    const list = { changes: true };

    test("is asked for them by its delta links, page by page", { timeout: 60_000 }, async () => {
      await using system = await startODataUpstream({ keyType: "number", tracks, pageSize: 3 });
      const { service, upstream } = system;
      service.seed(Array.from({ length: 8 }, (_, n) => `{"minutes":${n}}`));
      await using gateway = await startGateway({ upstreams: erp(system.url, { list }, polled) });
      const reader = newReader(gateway.as());
      await reader.until(() => reader.held.size === 8);
      for (let id = 1; id <= 5; id++) service.change(String(id), `{"minutes":${id * 10}}`);
      service.change("6", null);
      service.seed(['{"minutes":90}']);
      await reader.until(() => !reader.held.has("activity/6") && reader.held.has("activity/9"));
      await reader.until(() => reader.held.get("activity/5")?.data?.["minutes"] === 50);
      service.change("7", '{"minutes":70}');
      await reader.until(() => reader.held.get("activity/7")?.data?.["minutes"] === 70);
      expect(upstream.requests.filter(({ path }) => whole.test(path))).toHaveLength(1);
      expect(reader.told.filter(({ id }) => id === "8")).toHaveLength(1);
    });

    test("and has forgotten them is read as a whole, once", { timeout: 60_000 }, async () => {
      await using system = await startODataUpstream({ keyType: "number", tracks });
      const { service, upstream } = system;
      service.seed(['{"minutes":1}', '{"minutes":2}', '{"minutes":3}']);
      await using gateway = await startGateway({ upstreams: erp(system.url, { list }, polled) });
      const reader = newReader(gateway.as());
      await reader.until(() => reader.held.size === 3);
      upstream.script({ path: /deltatoken/ }, faults.status(404));
      await upstream.received({ path: whole }, 2);
      service.change("1", '{"minutes":10}');
      service.change("2", null);
      service.forget();
      await reader.until(() => reader.held.get("activity/1")?.data?.["minutes"] === 10);
      await reader.until(() => !reader.held.has("activity/2"));
      await upstream.received({ path: /deltatoken=2-/ }, 2);
      expect(upstream.requests.filter(({ path }) => whole.test(path))).toHaveLength(3);
    });
  },
);

test(
  "a page of changes is asked for again after a failure, by another process too",
  { timeout: 60_000 },
  async () => {
    await using system = await startODataUpstream({ keyType: "number", tracks: "4.0", pageSize: 2 });
    const { service, upstream } = system;
    service.seed(['{"minutes":1}', '{"minutes":2}', '{"minutes":3}']);
    const upstreams = erp(system.url, { list: { changes: true } }, { poll: { everyMs: 100 } });
    await using gateway = await startGateway({ upstreams });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 3);
    const gate = Promise.withResolvers<void>();
    const second = { path: /deltatoken.*skiptoken=2/ };
    system.script(second, faults.hold(gate.promise));
    for (const id of ["1", "2", "3"]) service.change(id, '{"minutes":10}');
    await upstream.received(second);
    await using another = await gateway.another();
    system.script(second, faults.status(503), faults.loseReply());
    await rowsOf(gateway.database, "update inbound set lease_until = now() - interval '1 second'");
    const late = newReader(another.as());
    await late.until(() => late.held.get("activity/3")?.data?.["minutes"] === 10);
    gate.resolve();
    await late.until(() => [...late.held.values()].every(({ data }) => data?.["minutes"] === 10));
    expect(upstream.requests.filter(({ path }) => path === "/odata/Activities")).toHaveLength(1);
  },
);

test(
  "a list of changes that goes round in circles is read as a whole instead, as is one that keeps failing",
  { timeout: 60_000 },
  async () => {
    await using system = await startODataUpstream({ keyType: "number", tracks: "4.0" });
    const { service, upstream } = system;
    service.seed(['{"minutes":1}']);
    const upstreams = erp(system.url, { list: { changes: true } }, { poll: { everyMs: 100 } });
    await using gateway = await startGateway({ upstreams });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 1);
    const circle = JSON.stringify({
      value: [{ Id: 1 }],
      "@odata.nextLink": "Activities?$deltatoken=1&$skiptoken=1",
    });
    const again = faults.status(200, { body: circle });
    upstream.script({ path: /deltatoken/ }, again, again);
    await upstream.received({ path: "/odata/Activities" }, 2);
    const failing = Array.from({ length: 5 }, () => faults.status(500));
    upstream.script({ path: /deltatoken/ }, ...failing);
    await upstream.received({ path: "/odata/Activities" }, 3);
    service.change("1", '{"minutes":10}');
    await reader.until(() => reader.held.get("activity/1")?.data?.["minutes"] === 10);
  },
);
