import { expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { startODataServer, type Row } from "../fixtures/odata-server.ts";
import { newReader } from "../inbound/reader.ts";
import { linesOf, newPhone } from "../replay/phone.ts";

const model = {
  mentors: { name: "Edm.String", ref: "Edm.String" },
  activities: { mentor: "Edm.String", minutes: "Edm.Int32", note: "Edm.String", ref: "Edm.String" },
};

const set = (path: string, fromUpstream: string, rest: object = {}): object => ({
  path,
  id: "/_id",
  keyType: "string",
  reference: "/ref",
  create: { class: "lookup" },
  // It has no versions: what a lost change did is looked up.
  update: { class: "lookup" },
  delete: { class: "client-id" },
  list: {},
  fromUpstream,
  ...rest,
});

const simple = (baseUrl: string, rest: object = {}): object => ({
  simple: {
    role: "primary",
    kind: "odata",
    baseUrl,
    timeoutMs: 2_000,
    retry: { baseMs: 10, capMs: 50 },
    entities: {
      mentor: set("/mentors", "{ 'name': name }"),
      activity: set("/activities", "{ 'mentor': mentor, 'minutes': minutes, 'note': note }", {
        references: { "/mentor": "mentor" },
      }),
    },
    ...rest,
  },
});

function withoutRef(row: Row): object {
  const { ref: _, ...rest } = row;
  return rest;
}

test(
  "an outbox reaches simple-odata-server by configuration alone, also when replies are lost",
  { timeout: 60_000 },
  async () => {
    await using system = await startODataServer(model);
    await using gateway = await startGateway({ upstreams: simple(system.url) });
    const phone = newPhone(gateway);
    const [mentor, kept, gone] = [tempId(), tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari O'Neil" } });
    phone.add({ op: "create", recordId: kept, data: { mentor, minutes: 45, note: "æ % + /" } });
    phone.add({ op: "create", recordId: gone, data: { minutes: 1 } });
    system.loseReplies("POST", 2);
    await phone.send();
    expect(linesOf(await phone.settled())).toEqual(["applied", "applied", "applied"]);
    phone.add({ op: "update", recordId: kept, data: { minutes: 50 } });
    phone.add({ op: "update", recordId: kept, data: { minutes: 55 } });
    phone.add({ op: "delete", recordId: gone, data: undefined });
    system.loseReplies("PATCH", 1);
    system.loseReplies("DELETE", 1);
    await phone.send();
    expect(linesOf(await phone.settled())).toEqual(Array.from({ length: 6 }, () => "applied"));
    const [kari] = system.rows("mentors");
    expect(system.rows("mentors").map(withoutRef)).toEqual([{ id: kari!.id, name: "Kari O'Neil" }]);
    const [activity] = system.rows("activities");
    expect(system.rows("activities").map(withoutRef)).toEqual([
      { id: activity!.id, mentor: kari!.id, minutes: 55, note: "æ % + /" },
    ]);
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 2);
    expect(reader.held.get(`activity/${activity!.id}`)?.data).toEqual({
      mentor: kari!.id,
      minutes: 55,
      note: "æ % + /",
    });
  },
);

test("what somebody else changed there meanwhile is a conflict, and a change of what is gone too", async () => {
  await using system = await startODataServer(model);
  await using gateway = await startGateway({ upstreams: simple(system.url) });
  const phone = newPhone(gateway);
  const [changed, removed] = [tempId(), tempId()];
  phone.add({ op: "create", recordId: changed, data: { minutes: 45 } });
  phone.add({ op: "create", recordId: removed, data: { minutes: 1 } });
  const [first, second] = await phone.replay();
  await system.call("PATCH", `/activities('${first!.recordId}')`, { minutes: 99 });
  await system.call("DELETE", `/activities('${second!.recordId}')`);
  phone.add({ op: "update", recordId: changed, baseVersion: first!.version!, data: { minutes: 50 } });
  phone.add({ op: "update", recordId: removed, baseVersion: second!.version!, data: { minutes: 2 } });
  const results = await phone.replay();
  expect(results).toMatchObject([
    { status: "conflict", current: { data: { minutes: 99 } } },
    { status: "conflict", current: { deleted: true } },
  ]);
  expect(system.rows("activities")).toMatchObject([{ minutes: 99 }]);
});

test("what others make, change and delete there reaches the readers", { timeout: 60_000 }, async () => {
  await using system = await startODataServer(model);
  for (let n = 0; n < 5; n++) await system.call("POST", "/activities", { _id: `a${n}`, minutes: n });
  await using gateway = await startGateway({ upstreams: simple(system.url, { poll: { everyMs: 100 } }) });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 5);
  await system.call("PATCH", "/activities('a1')", { minutes: 10 });
  await system.call("DELETE", "/activities('a2')");
  await system.call("POST", "/activities", { _id: "a9", minutes: 9 });
  await reader.until(() => reader.held.get("activity/a1")?.data?.["minutes"] === 10);
  await reader.until(() => !reader.held.has("activity/a2") && reader.held.has("activity/a9"));
  expect(reader.held.get("activity/a0")?.data).toEqual({ minutes: 0 });
});
