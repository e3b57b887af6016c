import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { storeOptions } from "./capabilities.ts";
import { entityName, policyEntities } from "./policies.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";
import { startWorkerProcess } from "./worker-process.ts";

const resolvable = ["idempotency-key", "upsert", "client-id", "conditional", "lookup"] as const;
type Resolvable = (typeof resolvable)[number];

describe("a merge whose answer is lost", () => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ ...storeOptions, strictKeys: true });
    const { crm } = policyEntities(upstream.url) as { crm: { entities: Record<string, object> } };
    const keyed = crm.entities[entityName("client-wins", "idempotency-key")];
    const whole = { ...keyed, path: "/whole", update: { class: "idempotency-key", method: "PUT" } };
    gateway = await startGateway({ upstreams: { crm: { ...crm, entities: { ...crm.entities, whole } } } });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test.each(resolvable)("%s: is made once, whether it took effect or not", async (name) => {
    for (const fault of [faults.loseReply(), faults.loseRequest(), faults.status(503)]) {
      const record = await seen(name);
      upstream.change(record.entity, record.recordId, JSON.stringify({ note: "clerk" }));
      upstream.script({ method: "PATCH", path: record.path }, fault);
      record.merge({ minutes: 50, tags: ["a", "b"] }, { minutes: 45, tags: ["a"] });
      expect(linesOf(await record.phone.replay())).toEqual(["applied"]);
      expect(record.held()).toMatchObject({ minutes: 50, tags: ["a", "b"], note: "clerk" });
      expect(record.bodies()).toEqual(record.bodies().map(() => ({ minutes: 50, tags: ["a", "b"] })));
    }
  });

  test.each(resolvable)("%s: what others do before the repeat to other fields stays", async (name) => {
    const record = await seen(name);
    record.meanwhile(faults.loseReply(), { note: "clerk" });
    record.merge({ minutes: 50 }, { minutes: 45 });
    expect(linesOf(await record.phone.replay())).toEqual(["applied"]);
    expect(record.held()).toMatchObject({ minutes: 50, note: "clerk" });
    // Nor is it taken back by what the phone does next, on the version that it knows.
    record.merge({ note: "phone" }, { note: "n" });
    expect(linesOf(await record.phone.replay())).toEqual(["conflict upstream-conflict"]);
    expect(record.held()).toMatchObject({ minutes: 50, note: "clerk" });
  });

  test.each(resolvable)(
    "%s: what others do before the repeat to the same field is not overwritten",
    async (name) => {
      for (const fault of [faults.loseReply(), faults.loseRequest()]) {
        const record = await seen(name);
        record.meanwhile(fault, { minutes: 7 });
        record.merge({ minutes: 50 }, { minutes: 45 });
        const [result] = await record.phone.replay();
        expect(result).toMatchObject({ status: "conflict", current: { data: { minutes: 7 } } });
        expect(record.held()).toMatchObject({ minutes: 7 });
      }
    },
  );

  test("a record that is sent as a whole again has its first key only if it is the same again", async () => {
    for (const clerk of [{}, { minutes: 7, note: "clerk" }]) {
      const recordId = randomUUID();
      const path = `/whole/${recordId}`;
      upstream.seed("whole", [JSON.stringify({ id: recordId, minutes: 45, note: "n" })]);
      upstream.script({ method: "PUT", path }, async (exchange) => {
        await faults.loseReply()(exchange);
        upstream.change("whole", recordId, JSON.stringify(clerk));
      });
      const phone = newPhone(gateway);
      phone.add({ op: "update", entity: "whole", recordId, data: { minutes: 50 } });
      phone.add({ op: "update", entity: "whole", recordId, data: { more: 1 } });
      expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
      expect(JSON.parse(upstream.records("whole").at(-1) ?? "")).toMatchObject({
        ...clerk,
        minutes: 50,
        more: 1,
      });
    }
  });

  test("own edits that were queued behind it go on, field by field", async () => {
    for (const name of resolvable) {
      const record = await seen(name);
      upstream.script({ method: "PATCH", path: record.path }, faults.loseReply());
      record.merge({ minutes: 50 }, { minutes: 45 });
      record.merge({ minutes: 55, note: "x" }, { minutes: 50, note: "n" });
      record.merge({ note: null }, { note: "x" });
      expect(linesOf(await record.phone.replay()), name).toEqual(["applied", "applied", "applied"]);
      expect(record.held()).toEqual({ id: record.recordId, minutes: 55, tags: ["a"], seen: true });
    }
  });

  test("a merge of a temp ID's record compares what the phone calls others by temp IDs", async () => {
    const entity = entityName("merge", "upsert");
    const [phone, other] = [newPhone(gateway), newPhone(gateway)];
    const [mentor, recordId] = [tempId(), tempId()];
    phone.add({ op: "create", entity, recordId: mentor, data: {} });
    phone.add({ op: "create", entity, recordId, data: { mentor, minutes: 45 } });
    const [theMentor, created] = await phone.replay();
    other.add({ op: "update", entity, recordId: created?.recordId ?? "", data: { minutes: 7 } });
    await other.replay();
    // The mentor was not touched, so it is not sent; and what it is called does not look like a change.
    phone.add({ op: "update", entity, recordId, base: { mentor, note: null }, data: { mentor, note: "x" } });
    phone.add({ op: "update", entity, recordId, base: { mentor }, data: { mentor: null } });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
    const answer = upstream.apply({
      method: "GET",
      path: `/${entity}/${created?.recordId}`,
      headers: {},
      body: Buffer.alloc(0),
    });
    expect(JSON.parse(answer.body ?? "")).toMatchObject({ minutes: 7, note: "x" });
    expect(answer.body).not.toContain(theMentor?.recordId);
  });

  // The last one: whatever comes after it may have been sent before.
  test("what a restored database has forgotten is recognised, and what others did stays", async () => {
    for (const name of resolvable) {
      const record = await seen(name);
      // Both edits were made, and a clerk's.
      upstream.change(record.entity, record.recordId, '{"minutes":55,"note":"clerk"}');
      await rowsOf(gateway.database, "update installation set recovered_at = clock_timestamp()");
      record.merge({ minutes: 50, note: "n" }, { minutes: 45, note: "n" });
      record.merge({ minutes: 55, note: "n" }, { minutes: 50, note: "n" });
      record.merge({ tags: ["b"], note: "phone" }, { tags: ["a"], note: "n" });
      const lines = linesOf(await record.phone.replay());
      expect(lines, name).toEqual(["applied", "applied", "conflict upstream-conflict"]);
      expect(record.held()).toMatchObject({ minutes: 55, note: "clerk", tags: ["a"] });
      expect(record.bodies().filter((body) => "note" in (body as object))).toEqual([]);
    }
  });

  async function seen(name: Resolvable) {
    return await seenRecord(gateway, upstream, name);
  }
});

test.each(["upsert", "conditional"] as const)(
  "%s: a merge whose worker was killed between the answer and the commit is made once",
  { timeout: 120_000 },
  async (name) => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using api = await startGateway({
      queues: "postgres",
      role: "api",
      upstreams: policyEntities(upstream.url, { timeoutMs: 1_000 }),
    });
    await using victim = await startWorkerProcess(api);
    const record = await seenRecord(api, upstream, name);
    upstream.change(record.entity, record.recordId, '{"note":"clerk"}');
    upstream.script(
      { method: "PATCH", path: record.path },
      faults.hold(new Promise(() => undefined), { effect: true }),
    );
    record.merge({ minutes: 50 }, { minutes: 45 });
    await record.phone.send({ wait: 0 });
    await upstream.received((request) => request.method === "PATCH" && request.body.includes("50"));
    victim.signal("SIGKILL");
    await victim.exited;
    upstream.change(record.entity, record.recordId, '{"more":1}');
    await api.another("worker");
    expect(linesOf(await record.phone.settled(60_000))).toEqual(["applied"]);
    expect(record.held()).toMatchObject({ minutes: 50, note: "clerk", more: 1 });
  },
);

/** A record of an entity that merges, as a phone has seen it. */
async function seenRecord(gateway: TestGateway, upstream: ScriptedUpstream, name: Resolvable) {
  const entity = entityName("merge", name);
  const recordId = randomUUID();
  const path = `/${entity}/${recordId}`;
  upstream.seed(entity, [JSON.stringify({ id: recordId, minutes: 45, note: "n", tags: ["a"] })]);
  const phone: Phone = newPhone(gateway);
  const other = newPhone(gateway);
  other.add({ op: "update", entity, recordId, data: { seen: true } });
  await other.send({ wait: 0 });
  const [first] = await other.settled();
  const requests = upstream.requests.length;
  return {
    entity,
    recordId,
    path,
    phone,
    merge: (data: object, base: object) =>
      phone.add({ op: "update", entity, recordId, baseVersion: first?.version, base, data }),
    /** Meets the fault, and then others change the record. */
    meanwhile: (fault: Fault, patch: object) =>
      upstream.script({ method: "PATCH", path }, async (exchange) => {
        await fault(exchange);
        upstream.change(entity, recordId, JSON.stringify(patch));
      }),
    held: (): unknown => {
      const request = { method: "GET", path, headers: {}, body: Buffer.alloc(0) };
      return JSON.parse(upstream.apply(request).body ?? "null");
    },
    /** What was sent to change it. */
    bodies: (): unknown[] =>
      upstream.requests
        .slice(requests)
        .filter((request) => request.method === "PATCH" && request.path === path)
        .map(({ body }) => JSON.parse(body.toString()) as unknown),
  };
}
