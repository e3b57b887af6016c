import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import type { CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Exchange } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";

describe("whatever the queues are on", () => {
  const queues = "postgres";

  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream(storeOptions);
    gateway = await startGateway({ queues, upstreams: capabilities(upstream.url, { timeoutMs: 5_000 }) });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  /** The record as the upstream holds it; null when it has none. */
  function held(entity: string, id: string): unknown {
    const request = { method: "GET", path: `/${entity}/${id}`, headers: {}, body: Buffer.alloc(0) };
    return JSON.parse(upstream.apply(request).body ?? "null");
  }

  /** Waits until what a phone has sent waits for another lane. */
  async function waiting({ clientId }: Phone): Promise<void> {
    const query = "select 1 from delivery where client_id = $1 and state = 'waiting'";
    const isWaiting = async () => expect(await rowsOf(gateway.database, query, [clientId])).toHaveLength(1);
    await vi.waitFor(isWaiting, { timeout: 20_000, interval: 20 });
  }

  test("what is to be changed only if nobody else has, is not changed where the upstream tells no version", async () => {
    const phone = newPhone(gateway);
    const { entity, recordId } = await createdBy(phone, "conditional");
    const path = `/${entity}/${recordId}`;
    upstream.always({ path }, ({ apply, send }) => send({ ...apply(), headers: {} }));
    phone.add({ op: "update", entity, recordId, data: { minutes: 50 } });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    phone.add({ op: "update", entity, recordId, data: { minutes: 55 } });
    phone.add({ op: "delete", entity, recordId });
    expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected", "pending"]);
    expect(held(entity, recordId)).toMatchObject({ minutes: 50 });
  });

  test("a refusal of a record that has not moved ends, in whatever order the upstream writes its fields", async () => {
    const phone = newPhone(gateway);
    const { entity, recordId, version } = await createdBy(phone, "upsert", { minutes: 45, note: "n" });
    const path = `/${entity}/${recordId}`;
    let reads = 0;
    upstream.always({ method: "PATCH", path }, faults.status(409));
    upstream.always({ method: "GET", path }, ({ apply, send }) => {
      const members = Object.entries(JSON.parse(apply().body ?? "{}") as object);
      const body = JSON.stringify(Object.fromEntries(reads++ % 2 ? members.toReversed() : members));
      send({ status: 200, body });
    });
    phone.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 50 } });
    expect(linesOf(await phone.replay({ wait: 5 }))).toEqual(["conflict upstream-conflict"]);
  });

  test("a change of a version that is no longer current is a conflict, with the record as it is now", async () => {
    const [mine, theirs] = [newPhone(gateway), newPhone(gateway)];
    const { entity, recordId, version } = await createdBy(mine, "upsert");
    theirs.add({ op: "update", entity, recordId, data: { minutes: 7 } });
    expect(linesOf(await theirs.replay())).toEqual(["applied"]);
    mine.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 50 } });
    mine.add({ op: "delete", entity, recordId, baseVersion: version });
    const results = await mine.replay();
    const current = { version: "2", data: { minutes: 7 } };
    expect(results).toMatchObject([
      { status: "conflict", current },
      { status: "conflict", current },
    ]);
    expect(held("upsert", recordId)).toMatchObject({ minutes: 7 });
    // With the version that it was shown, or with none, it goes through.
    mine.add({ op: "update", entity, recordId, baseVersion: "2", data: { minutes: 50 } });
    mine.add({ op: "update", entity, recordId, baseVersion: null, data: { hours: 1 } });
    expect(linesOf(await mine.replay())).toEqual(["applied", "applied"]);
    expect(held("upsert", recordId)).toMatchObject({ minutes: 50, hours: 1 });
  });

  test("own edits don't conflict with themselves: queued offline, and while one is in flight", async () => {
    const phone = newPhone(gateway);
    const { entity, recordId, version } = await createdBy(phone, "conditional");
    const change = (data: object) =>
      phone.add({ op: "update", entity, recordId, baseVersion: version, data });
    change({ a: 1 });
    change({ b: 2 });
    change({ a: 3 });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied", "applied"]);
    const gate = Promise.withResolvers<void>();
    const path = `/conditional/${recordId}`;
    upstream.script({ method: "PATCH", path }, faults.hold(gate.promise));
    change({ c: 4 });
    const first = phone.replay();
    await upstream.received({ method: "PATCH", path }, 4);
    change({ d: 5 });
    const second = phone.replay();
    gate.resolve();
    expect(linesOf([...(await first), ...(await second)])).toEqual(["applied", "applied"]);
    expect(held("conditional", recordId)).toMatchObject({ minutes: 45, a: 3, b: 2, c: 4, d: 5 });
  });

  test("after somebody else's change own edits of an older version do conflict, and nothing is rebased on a conflict", async () => {
    const [mine, theirs] = [newPhone(gateway), newPhone(gateway)];
    const { entity, recordId, version } = await createdBy(mine, "conditional");
    const change = (data: object) => mine.add({ op: "update", entity, recordId, baseVersion: version, data });
    change({ a: 1 });
    expect(linesOf(await mine.replay())).toEqual(["applied"]);
    theirs.add({ op: "update", entity, recordId, data: { a: 7 } });
    await theirs.replay();
    change({ a: 2 });
    change({ b: 2 });
    expect(linesOf(await mine.replay())).toEqual([
      "conflict upstream-conflict",
      "conflict upstream-conflict",
    ]);
    mine.add({ op: "update", entity, recordId, baseVersion: null, data: { c: 3 } });
    change({ b: 2 });
    expect(linesOf(await mine.replay())).toEqual(["applied", "conflict upstream-conflict"]);
    expect(held("conditional", recordId)).toMatchObject({ a: 7, c: 3 });
  });

  test("a change that somebody made in the upstream itself is met by its version", async () => {
    const phone = newPhone(gateway);
    const { entity, recordId, version } = await createdBy(phone, "conditional");
    const path = `/conditional/${recordId}`;
    const touch = (data: object) =>
      upstream.apply({ method: "PATCH", path, headers: {}, body: Buffer.from(JSON.stringify(data)) });
    // Another version with the same content takes nothing away from anybody.
    touch({});
    phone.add({ op: "update", entity, recordId, baseVersion: version, data: { a: 1 } });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    touch({ minutes: 7 });
    phone.add({ op: "update", entity, recordId, baseVersion: "2", data: { a: 2 } });
    phone.add({ op: "update", entity, recordId, baseVersion: null, data: { b: 2 } });
    const results = await phone.replay();
    expect(results).toMatchObject([
      { status: "conflict", version: "3", current: { data: { minutes: 7, a: 1 } } },
      { status: "applied", version: "4" },
    ]);
    touch({ minutes: 8 });
    phone.add({ op: "delete", entity, recordId, baseVersion: "4" });
    phone.add({ op: "delete", entity, recordId, baseVersion: null });
    expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict", "applied"]);
    expect(held("conditional", recordId)).toBeNull();
  });

  test("a record that keeps changing makes a change without a version wait, not park or conflict", async () => {
    const phone = newPhone(gateway);
    const { entity, recordId } = await createdBy(phone, "conditional");
    const path = `/conditional/${recordId}`;
    const outrun = ({ apply, send }: Exchange): void => {
      const body = Buffer.from(JSON.stringify({ seen: randomUUID() }));
      upstream.apply({ method: "PATCH", path, headers: {}, body });
      send(apply());
    };
    upstream.script({ method: "PATCH", path }, outrun, outrun, outrun, outrun, outrun);
    phone.add({ op: "update", entity, recordId, data: { minutes: 50 } });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    expect(held("conditional", recordId)).toMatchObject({ minutes: 50 });
  });

  test.each(["upsert", "conditional", "idempotency-key", "lookup"] as const)(
    "%s: of two phones that change one record at once, the record and the feed end as the upstream does",
    async (entity) => {
      const phones = [newPhone(gateway), newPhone(gateway)];
      const { recordId } = await createdBy(phones[0]!, entity, { a: 0, b: 0 });
      const path = `/${entity}/${recordId}`;
      // The answer that was made first is the last to come.
      const late = Promise.withResolvers<void>();
      upstream.script({ method: "PATCH", path }, faults.hold(late.promise, { effect: true }));
      // Nothing that comes after it covers what an old answer would have undone.
      phones[0]!.add({ op: "update", entity, recordId, data: { a: 1 } });
      for (let n = 1; n <= 5; n++) phones[1]!.add({ op: "update", entity, recordId, data: { b: n } });
      const first = phones[0]!.replay();
      await upstream.received({ method: "PATCH", path });
      const second = phones[1]!.replay();
      // Where the upstream has no versions, the second phone waits until the first one's change is known.
      if (entity === "conditional") await second;
      else await waiting(phones[1]!);
      late.resolve();
      const results = [...(await first), ...(await second)];
      expect(linesOf(results)).toEqual(Array.from({ length: 6 }, () => "applied"));
      const end = { a: 1, b: 5 };
      expect(held(entity, recordId)).toMatchObject(end);
      const versions = results.map(({ version }) => Number(version));
      expect(new Set(versions).size).toBe(6);
      const { body } = await newPhone(gateway).api.get("/v1/changes?limit=1000");
      const upserts = body.changes.filter(
        (change: { id?: string; entity?: string }) => change.id === recordId && change.entity === entity,
      );
      expect(upserts.at(-1)).toMatchObject({ version: String(Math.max(...versions)), data: end });
    },
  );

  test("the answer to a repeated key is of an earlier time, and takes nobody's later change back", async () => {
    const phones = [newPhone(gateway), newPhone(gateway)];
    const entity = "idempotency-key";
    const { recordId } = await createdBy(phones[0]!, entity, { a: 0, b: 0 });
    const when = ({ method, path, body }: RecordedRequest): boolean =>
      method === "PATCH" && path === `/${entity}/${recordId}` && body.includes('"a"');
    upstream.script(when, faults.loseReply(), faults.status(429, { headers: { "retry-after": "1" } }));
    phones[0]!.add({ op: "update", entity, recordId, data: { a: 1 } });
    phones[1]!.add({ op: "update", entity, recordId, data: { b: 1 } });
    const first = phones[0]!.replay();
    await upstream.received(when, 2);
    expect(linesOf([...(await phones[1]!.replay()), ...(await first)])).toEqual(["applied", "applied"]);
    expect(held(entity, recordId)).toMatchObject({ a: 1, b: 1 });
    const { body } = await newPhone(gateway).api.get("/v1/changes?limit=1000");
    const last = body.changes.findLast(
      (change: { id?: string; entity?: string }) => change.id === recordId && change.entity === entity,
    );
    expect(last).toMatchObject({ data: { a: 1, b: 1 } });
  });

  test("two workers that see a record for the first time lose neither's change", async () => {
    await using other = await gateway.another();
    for (let round = 0; round < 4; round++) {
      const recordId = `seen-${randomUUID()}`;
      upstream.seed("upsert", [JSON.stringify({ id: recordId, a: 0, b: 0 })]);
      const phones = [newPhone(gateway), newPhone(other)];
      phones[0]!.add({ op: "update", entity: "upsert", recordId, data: { a: 1 } });
      phones[1]!.add({ op: "update", entity: "upsert", recordId, data: { b: 1 } });
      const results = (await Promise.all(phones.map(async (phone) => await phone.replay()))).flat();
      expect(linesOf(results)).toEqual(["applied", "applied"]);
      expect(results.map(({ version }) => version).toSorted((a, b) => Number(a) - Number(b))).toEqual([
        "1",
        "2",
      ]);
      const { body } = await phones[0]!.api.get("/v1/changes?limit=1000");
      const last = body.changes.findLast((change: { id?: string }) => change.id === recordId);
      expect(last).toMatchObject({ version: "2", data: { a: 1, b: 1 } });
    }
  });
});

async function createdBy(phone: Phone, entity: CapabilityClass, data: object = { minutes: 45 }) {
  phone.add({ op: "create", entity, recordId: tempId(), data });
  const [result] = await phone.replay();
  return { entity, recordId: result?.recordId ?? "", version: result?.version ?? "" };
}
