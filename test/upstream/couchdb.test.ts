import { expect, test } from "vitest";

import { startCouchDb, type Doc } from "../fixtures/couchdb.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { newReader } from "../inbound/reader.ts";
import { newPhone } from "../replay/phone.ts";

const receipt = { id: "/id", version: { pointer: "/rev" } };

function database(path: string, rest: object = {}): object {
  return {
    path,
    id: "/_id",
    version: { pointer: "/_rev" },
    create: { method: "PUT", class: "client-id", answer: receipt },
    update: { method: "PUT", class: "conditional", query: "rev", answer: receipt },
    delete: { class: "conditional", query: "rev" },
    list: {
      path: "{path}/_all_docs?include_docs=true",
      items: "/rows",
      record: "/doc",
      offset: "skip",
      size: "limit",
      pageSize: 3,
    },
    fromUpstream: '$sift($, function($value, $name) { $substring($name, 0, 1) != "_" })',
    ...rest,
  };
}

const couch = (baseUrl: string, rest: object = {}): object => ({
  couch: {
    role: "primary",
    kind: "rest",
    baseUrl,
    retry: { baseMs: 10, capMs: 50 },
    entities: {
      mentor: database("/mentors"),
      activity: database("/activities", { references: { "/mentor": "mentor" } }),
    },
    ...rest,
  },
});

/** A record's ID in CouchDB: we choose it, from its temp ID. */
const idOf = (temp: string): string => temp.replace("urn:uuid:", "");

const revOf = ({ _rev: rev }: Doc): string => rev;
const withoutRev = ({ _rev, ...doc }: Doc): object => doc;

test("an outbox reaches CouchDB by configuration alone, also when replies are lost", async () => {
  await using couchDb = await startCouchDb("mentors", "activities");
  await using gateway = await startGateway({ upstreams: couch(couchDb.url) });
  const phone = newPhone(gateway);
  const [mentor, kept, gone] = [tempId(), tempId(), tempId()];
  phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
  phone.add({ op: "create", recordId: kept, data: { mentor, minutes: 45, tags: ["a/b", "æ"] } });
  phone.add({ op: "create", recordId: gone, data: { minutes: 1 } });
  couchDb.loseReplies("PUT", 2);
  await phone.send();
  await phone.settled();
  phone.add({ op: "update", recordId: kept, data: { minutes: 50, note: "longer" } });
  phone.add({ op: "update", recordId: kept, data: { note: null, minutes: 55 } });
  phone.add({ op: "delete", recordId: gone, data: undefined });
  couchDb.loseReplies("PUT", 1);
  couchDb.loseReplies("DELETE", 1);
  await phone.send();
  const results = await phone.settled();
  expect(results.map(({ status }) => status)).toEqual(Array.from({ length: 6 }, () => "applied"));
  const [mentors, activities] = [await couchDb.docs("mentors"), await couchDb.docs("activities")];
  expect([...mentors.values()].map(withoutRev)).toEqual([{ _id: idOf(mentor), name: "Kari" }]);
  expect([...activities.values()].map(withoutRev)).toEqual([
    { _id: idOf(kept), mentor: idOf(mentor), minutes: 55, tags: ["a/b", "æ"] },
  ]);
  expect(revOf(activities.get(idOf(kept))!)).toMatch(/^3-/);
});

test("what somebody else changed in CouchDB meanwhile is a conflict, and the phone gets to see it", async () => {
  await using couchDb = await startCouchDb("mentors", "activities");
  await using gateway = await startGateway({ upstreams: couch(couchDb.url) });
  const phone = newPhone(gateway);
  const [changed, removed] = [tempId(), tempId()];
  const urlOf = (temp: string): string => `/activities/${idOf(temp)}`;
  phone.add({ op: "create", recordId: changed, data: { minutes: 45 } });
  phone.add({ op: "create", recordId: removed, data: { minutes: 1 } });
  const [first, second] = await phone.replay();
  const before = await couchDb.docs("activities");
  await couchDb.call("PUT", urlOf(changed), {
    ...before.get(idOf(changed)),
    minutes: 99,
  });
  const { _rev: rev } = before.get(idOf(removed))!;
  await couchDb.call("DELETE", `${urlOf(removed)}?rev=${rev}`);
  phone.add({ op: "update", recordId: changed, baseVersion: first!.version!, data: { minutes: 50 } });
  phone.add({ op: "update", recordId: removed, baseVersion: second!.version!, data: { minutes: 2 } });
  const results = await phone.replay();
  expect(results.map(({ status }) => status)).toEqual(["conflict", "conflict"]);
  expect(results.map(({ current }) => current)).toMatchObject([{ data: { minutes: 99 } }, { deleted: true }]);
  phone.add({
    op: "update",
    recordId: changed,
    baseVersion: results[0]!.current!.version,
    data: { minutes: 51 },
  });
  expect((await phone.replay()).map(({ status }) => status)).toEqual(["applied"]);
  const after = await couchDb.docs("activities");
  expect([...after.values()].map(withoutRev)).toEqual([{ _id: idOf(changed), minutes: 51 }]);
});

test(
  "what others make, change and delete in CouchDB reaches the readers, page by page",
  { timeout: 60_000 },
  async () => {
    await using couchDb = await startCouchDb("mentors", "activities");
    for (let n = 0; n < 8; n++) await couchDb.call("PUT", `/activities/a${n}`, { n });
    const upstreams = couch(couchDb.url, { poll: { everyMs: 100, sweepEveryMs: 200 } });
    await using gateway = await startGateway({ upstreams });
    const reader = newReader(gateway.as());
    await reader.until(() => reader.held.size === 8);
    const docs = await couchDb.docs("activities");
    await couchDb.call("PUT", "/activities/a3", { ...docs.get("a3"), n: 33 });
    await couchDb.call("DELETE", `/activities/a5?rev=${revOf(docs.get("a5")!)}`);
    await couchDb.call("PUT", "/activities/a9", { n: 9 });
    await reader.until(() => reader.held.get("activity/a3")?.data?.["n"] === 33);
    await reader.until(() => !reader.held.has("activity/a5") && reader.held.has("activity/a9"));
    expect(reader.held.get("activity/a0")?.data).toEqual({ n: 0 });
    expect(couchDb.asked).toContain("GET /activities/_all_docs?include_docs=true&skip=6&limit=3");
  },
);
