import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone, resultOf, toLine, type Phone } from "./phone.ts";
import { deliveriesOf, laneOf } from "./rows.ts";

const upstreamRest = {
  circuit: { failures: 10_000, cooldownMs: 20 },
  statuses: { 423: "retry", 410: "park", 507: "park" },
};
const mapped = {
  path: "/mapped",
  id: "/id",
  create: { class: "idempotency-key" },
  update: { class: "upsert" },
  toUpstream: "minutes > 1000 ? $error('too many') : $",
};

describe("whatever the queues are on", () => {
  const queues = "postgres";

  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    const upstreams = crm(upstream.url, { upstream: upstreamRest }) as { crm: { entities: object } };
    Object.assign(upstreams.crm.entities, { mapped });
    gateway = await startGateway({
      queues,
      upstreams,
      otherUpstreams: crm(upstream.url, { upstream: { ...upstreamRest, onPark: "hold-lane" } }),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  /** Queues a create that meets the faults, in turn. */
  function addCreate(phone: Phone, ...list: Fault[]) {
    const marker = randomUUID();
    upstream.script(bodyHas(marker), ...list);
    return phone.add({ op: "create", recordId: tempId(), data: { marker } });
  }

  /** Creates a record, and queues changes of it that meet the faults. */
  async function withRecord(phone: Phone, method: "PATCH" | "DELETE", ...list: Fault[]) {
    const create = phone.add({ op: "create", recordId: tempId(), data: { minutes: 45 } });
    const { recordId = "", version } = resultOf(await phone.replay(), create);
    upstream.script({ method, path: `/activities/${recordId}` }, ...list);
    return { recordId, version };
  }

  test("data that the upstream refuses is rejected, and the rest goes on", async () => {
    const phone = newPhone(gateway);
    addCreate(phone, faults.status(400));
    addCreate(phone, faults.status(422, { body: '{"error":"minutes"}' }));
    addCreate(phone);
    expect(linesOf(await phone.replay())).toEqual([
      "rejected upstream-rejected",
      "rejected upstream-rejected",
      "applied",
    ]);
  });

  test.each([409, 412])(
    "an update answered with %d is a conflict that shows the record as it is",
    async (status) => {
      const phone = newPhone(gateway);
      const { recordId } = await withRecord(phone, "PATCH", ({ apply, send }) => {
        upstream.apply(patch(recordId, { minutes: 7 }));
        void apply;
        send({ status });
      });
      phone.add({ op: "update", recordId, data: { minutes: 50 } });
      const [result] = await phone.replay();
      expect(result).toMatchObject({ status: "conflict", recordId, current: { data: { minutes: 7 } } });
      expect(result?.version).toBe(result?.current?.version);
    },
  );

  test("an update of a record that is gone is a conflict that says so", async () => {
    const phone = newPhone(gateway);
    const { recordId } = await withRecord(phone, "PATCH");
    upstream.apply({ ...patch(recordId, {}), method: "DELETE" });
    phone.add({ op: "update", recordId, data: { minutes: 50 } });
    const [result] = await phone.replay();
    expect(result).toMatchObject({ status: "conflict", current: { deleted: true } });
    phone.add({ op: "delete", recordId });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
  });

  test("also when an earlier call was unclear, a record that is gone is a conflict", async () => {
    const phone = newPhone(gateway);
    const { recordId } = await withRecord(phone, "PATCH", ({ request, send }) => {
      upstream.apply({ ...request, method: "DELETE" });
      send({ status: 500 });
    });
    phone.add({ op: "update", recordId, data: { minutes: 50 } });
    expect((await phone.replay())[0]).toMatchObject({ status: "conflict", current: { deleted: true } });
  });

  test("a delete of a record that is gone is applied, unless the configuration says what else that means", async () => {
    const phone = newPhone(gateway);
    const first = await withRecord(phone, "DELETE", faults.status(404));
    phone.add({ op: "delete", recordId: first.recordId });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    const second = await withRecord(phone, "DELETE", faults.status(410));
    phone.add({ op: "delete", recordId: second.recordId });
    expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected"]);
  });

  test.each([
    ["418, which nobody foresaw", faults.status(418, { body: "I'm a teapot" })],
    ["a redirect", faults.status(303, { headers: { location: "/elsewhere" } })],
    ["507, which the configuration says to park", faults.status(507)],
  ])("a call answered with %s parks, with the answer as evidence", async (_what, fault) => {
    const phone = newPhone(gateway);
    const create = addCreate(phone, fault);
    addCreate(phone);
    expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected", "applied"]);
    const [delivery] = await deliveriesOf(gateway.database, phone.clientId);
    expect(delivery).toMatchObject({ mutation_id: create.id, state: "parked" });
    expect(delivery?.evidence_status).toBeGreaterThan(300);
    expect(upstream.requests.filter(bodyHas((create.data as { marker: string }).marker))).toHaveLength(1);
  });

  test("what depends on a parked mutation is held, through every link and later batches; the rest passes", async () => {
    const phone = newPhone(gateway);
    const [mentor, activity, marker] = [tempId(), tempId(), randomUUID()];
    upstream.script(bodyHas(marker), faults.status(418));
    const parked = phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    const held = phone.add({ op: "create", recordId: activity, data: { mentor } });
    const first = await phone.replay();
    expect(linesOf(first)).toEqual(["parked upstream-unexpected", "pending"]);
    expect(resultOf(first, held).blockedBy).toBe(parked.id);
    const more = [
      phone.add({ op: "update", entity: "mentor", recordId: mentor.toUpperCase(), data: { name: "x" } }),
      phone.add({ op: "update", recordId: activity, data: { minutes: 1 } }),
      phone.add({ op: "create", recordId: tempId(), dependsOn: [held.id] }),
      phone.add({ op: "delete", recordId: activity }),
    ];
    const free = phone.add({ op: "create", recordId: tempId(), data: { minutes: 2 } });
    const second = await phone.replay();
    expect(more.map((mutation) => resultOf(second, mutation).blockedBy)).toEqual([
      parked.id,
      held.id,
      held.id,
      held.id,
    ]);
    expect(toLine(resultOf(second, free))).toBe("applied");
    expect(await laneOf(gateway.database, phone.clientId)).toMatchObject({
      due_in_ms: null,
      is_leased: false,
    });
  });

  test("a delete waits for parked mutations that refer to its record, by temp ID or server ID", async () => {
    const phone = newPhone(gateway);
    const mentor = tempId();
    phone.add({ op: "create", entity: "mentor", recordId: mentor });
    const [created] = await phone.replay();
    for (const reference of [mentor, created?.recordId]) {
      const marker = randomUUID();
      upstream.script(bodyHas(marker), faults.status(418));
      phone.add({ op: "create", recordId: tempId(), data: { marker, mentor: reference } });
    }
    const update = phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { name: "x" } });
    const remove = phone.add({ op: "delete", entity: "mentor", recordId: created?.recordId ?? "" });
    const results = await phone.replay();
    expect(toLine(resultOf(results, update))).toBe("applied");
    expect(resultOf(results, remove)).toMatchObject({ status: "pending", blockedBy: results[0]?.id });
  });

  test("with hold-lane everything of that client waits behind a parked mutation", async () => {
    const [phone, other] = [newPhone(gateway, { iss: "other" }), newPhone(gateway, { iss: "other" })];
    addCreate(phone, faults.status(418));
    addCreate(phone);
    const { body } = await phone.send({ wait: 1 });
    expect(linesOf(body.results)).toEqual(["parked upstream-unexpected", "pending"]);
    addCreate(other);
    expect(linesOf(await other.replay())).toEqual(["applied"]);
    addCreate(phone);
    await phone.send({ wait: 0 });
    await expect
      .poll(async () => await laneOf(gateway.database, phone.clientId))
      .toMatchObject({ position: "0", due_in_ms: null, is_leased: false });
    expect(linesOf(await phone.outcomes())).toEqual(["parked upstream-unexpected", "pending", "pending"]);
  });

  test("a refused access parks nothing: all of it arrives when it is granted again", async () => {
    const phone = newPhone(gateway);
    const create = addCreate(phone, faults.status(401), faults.status(403), faults.status(407));
    addCreate(phone);
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
    const { marker } = create.data as { marker: string };
    expect(upstream.requests.filter(bodyHas(marker))).toHaveLength(4);
  });

  test("data that a mapping can't take parks, and nothing is sent", async () => {
    const phone = newPhone(gateway);
    const marker = randomUUID();
    phone.add({ op: "create", entity: "mapped", recordId: tempId(), data: { marker, minutes: 1001 } });
    phone.add({ op: "create", entity: "mapped", recordId: tempId(), data: { marker, minutes: 45 } });
    expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected", "applied"]);
    expect(upstream.requests.filter(bodyHas(marker))).toHaveLength(1);
  });

  test("names that no database takes, in what a parked mutation refers to, stop nothing", async () => {
    const phone = newPhone(gateway);
    const marker = randomUUID();
    upstream.script(bodyHas(marker), faults.status(418));
    const mentor = String.raw`["\u0000", "\ud800", 7, "5"]`;
    const create = phone.add({ op: "create", recordId: tempId(), data: { marker, mentor: "here" } });
    addCreate(phone);
    const text = JSON.stringify(phone.batch()).replace('"here"', mentor);
    const { body } = await phone.api.post("/v1/batches", text, { headers: { prefer: "wait=20" } });
    expect(linesOf(body.results)).toEqual(["parked upstream-unexpected", "applied"]);
    const rows = await deliveriesOf(gateway.database, phone.clientId);
    expect(rows).toMatchObject([{ mutation_id: create.id, refers_to: ["mentor/7", "mentor/5"] }]);
  });

  test("an ID that no request can carry names no record, and bothers nobody", async () => {
    const phone = newPhone(gateway);
    for (const recordId of ["%2e", "a/../b", "ø?#", "//", "1/2"]) phone.add({ op: "delete", recordId });
    expect(linesOf(await phone.replay())).toEqual(Array.from({ length: 5 }, () => "rejected not-found"));
  });

  test("an answer that can't be stored parks one phone's mutation and nobody else's", async () => {
    const phones = Array.from({ length: 8 }, () => newPhone(gateway));
    const gate = Promise.withResolvers<void>();
    const creates = phones.map((phone, index) =>
      addCreate(phone, async ({ apply, send }) => {
        await gate.promise;
        const normal = apply();
        send(index === 3 ? { status: 201, body: String.raw`{"id":"a\u0000b"}` } : normal);
      }),
    );
    const sent = Promise.all(phones.map(async (phone) => linesOf(await phone.replay())[0]));
    // All of them are answered at the same moment, and written down together.
    await Promise.all(
      creates.map(({ data }) => upstream.received(bodyHas((data as { marker: string }).marker))),
    );
    gate.resolve();
    const lines = await sent;
    expect(lines.filter((line) => line === "applied")).toHaveLength(7);
    expect(lines[3]).toBe("parked upstream-unexpected");
  });
});

function bodyHas(marker: string): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method === "POST" && body.toString().includes(marker);
}

function patch(recordId: string, data: object): RecordedRequest {
  const body = Buffer.from(JSON.stringify(data));
  return { method: "PATCH", path: `/activities/${recordId}`, headers: {}, body };
}
