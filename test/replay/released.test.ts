import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { newOperator } from "./operator.ts";
import { bodyHas, quiet } from "./parked.ts";
import { linesOf, newPhone, resultOf, type Phone } from "./phone.ts";
import { deliveriesOf, rowsOf } from "./rows.ts";
import { startWorkerProcess } from "./worker-process.ts";

const outcomesOf = async (phone: Phone): Promise<string[]> => linesOf(await phone.outcomes());
const patient = { timeout: 30_000 };

/** Creates that are parked, `bytes` apart in the log; then one whose call is under way. */
async function takenOver({ count, bytes }: { count: number; bytes: number }) {
  const upstream = await startScriptedUpstream(storeOptions);
  const gateway = await startGateway({ upstreams: capabilities(upstream.url, { timeoutMs: 5_000 }) });
  const [phone, marker, head] = [newPhone(gateway), randomUUID(), randomUUID()];
  const lift = upstream.always(bodyHas(marker), faults.status(418));
  const parked = [];
  for (let n = 0; n < count; n++) {
    parked.push(phone.add({ op: "create", entity: "lookup", recordId: tempId(), data: { marker, n } }));
    for (let filled = 0; filled < bytes; filled += 200_000)
      phone.add({
        op: "create",
        entity: "upsert",
        recordId: tempId(),
        data: { text: "x".repeat(200_000) },
      });
    if (bytes > 0) await phone.send({ wait: 0 });
  }
  if (bytes === 0) await phone.send({ wait: 0 });
  await phone.settled();
  lift();
  const gate = Promise.withResolvers<void>();
  upstream.script(bodyHas(head), faults.hold(gate.promise, { effect: true }));
  phone.add({ op: "create", entity: "lookup", recordId: tempId(), data: { head } });
  await phone.send({ wait: 0 });
  await upstream.received(bodyHas(head));
  const dispose = async (): Promise<void> => {
    gate.resolve();
    await gateway.close();
    await upstream.stop();
  };
  return { upstream, gateway, phone, parked, head, gate, [Symbol.asyncDispose]: dispose };
}

/** A parked create, and one thing that is held behind it; the create is released, and that one parked instead. */
async function parkedInstead(second: "update" | "reference") {
  const upstream = await startScriptedUpstream();
  const gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
  const operator = newOperator(gateway);
  const [phone, marker, recordId] = [newPhone(gateway), randomUUID(), tempId()];
  upstream.script(bodyHas(marker), faults.status(418));
  const create = phone.add({ op: "create", entity: "mentor", recordId, data: { marker } });
  const other = phone.add(
    second === "update"
      ? { op: "update", entity: "mentor", recordId, data: { v: 1 } }
      : { op: "create", recordId: tempId(), data: { mentor: recordId } },
  );
  await phone.replay({ wait: 25 });
  const method = second === "update" ? { method: "PATCH" } : { method: "POST", path: "/activities" };
  upstream.script(method, faults.status(418));
  await operator.command(create.id, { command: "retry" });
  await expect
    .poll(async () => await outcomesOf(phone), patient)
    .toEqual(["applied", "parked upstream-unexpected"]);
  const { recordId: serverId = "" } = resultOf(await phone.outcomes(), create);
  const dispose = async (): Promise<void> => {
    await gateway.close();
    await upstream.stop();
  };
  return { upstream, operator, phone, other, serverId, [Symbol.asyncDispose]: dispose };
}

describe("behind an owner that died, the head is resolved before anything else", { timeout: 120_000 }, () => {
  test.each([
    { count: 1, bytes: 0 },
    { count: 101, bytes: 0 },
    { count: 2, bytes: 1_200_000 },
  ])("however much was released meanwhile: $count, $bytes bytes each", async (amount) => {
    await using world = await takenOver(amount);
    const { upstream, gateway, phone, parked, head, gate } = world;
    const operator = newOperator(gateway);
    await Promise.all(parked.map(async ({ id }) => await operator.command(id, { command: "retry" })));
    await rowsOf(
      gateway.database,
      "update lane set epoch = epoch + 1, lease_until = now(), due_at = now() where lane_id = $1",
      [phone.clientId],
    );
    await operator.now(phone.clientId);
    const statuses = async () => new Set(await outcomesOf(phone));
    await expect.poll(statuses, { timeout: 60_000 }).toEqual(new Set(["applied"]));
    gate.resolve();
    expect(upstream.effects.filter(({ record }) => record?.includes(head))).toHaveLength(1);
  });
});

describe("what was released and parked again", { timeout: 60_000 }, () => {
  test("holds a later update that names the record by its server ID", async () => {
    await using world = await parkedInstead("update");
    const { upstream, operator, phone, other, serverId } = world;
    phone.add({ op: "update", entity: "mentor", recordId: serverId, data: { v: 2 } });
    await phone.replay({ wait: 25 });
    await operator.command(other.id, { command: "retry" });
    expect(linesOf(await phone.settled())).toEqual(["applied", "applied", "applied"]);
    expect(upstream.records("mentors").map((text) => JSON.parse(text) as object)).toMatchObject([{ v: 2 }]);
  });

  test("holds a delete of the record that it refers to, by its server ID", async () => {
    await using world = await parkedInstead("reference");
    const { phone, serverId } = world;
    const remove = phone.add({ op: "delete", entity: "mentor", recordId: serverId });
    const results = await phone.replay({ wait: 25 });
    expect(resultOf(results, remove)).toMatchObject({ status: "pending", blockedBy: expect.any(String) });
  });

  test("holds what names its record by server ID also while it is still held under the temp ID", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
    const operator = newOperator(gateway);
    const [phone, markers, recordId] = [newPhone(gateway), [randomUUID(), randomUUID()], tempId()];
    for (const marker of markers) upstream.script(bodyHas(marker), faults.status(418));
    const add = (name: string, marker: string) =>
      phone.add({ op: "create", entity: "mentor", recordId: name, data: { marker } });
    const [blocker, create] = [add(tempId(), markers[0]!), add(recordId, markers[1]!)];
    phone.add({ op: "update", entity: "mentor", recordId, data: { v: 1 }, dependsOn: [blocker.id] });
    await phone.replay({ wait: 25 });
    await operator.command(create.id, { command: "retry" });
    await expect.poll(async () => (await outcomesOf(phone))[1], patient).toBe("applied");
    const { recordId: serverId = "" } = resultOf(await phone.outcomes(), create);
    phone.add({ op: "update", entity: "mentor", recordId: serverId, data: { v: 2 } });
    await phone.replay({ wait: 25 });
    await operator.command(blocker.id, { command: "retry" });
    expect(linesOf(await phone.settled())).toEqual(["applied", "applied", "applied", "applied"]);
    expect(upstream.effects.filter(({ op }) => op === "update").map(({ record }) => record)).toMatchObject([
      expect.stringContaining('"v":1'),
      expect.stringContaining('"v":2'),
    ]);
  });
});

test("to give a change up waits for no other release, though that is tried again and again", async () => {
  await using upstream = await startScriptedUpstream();
  const circuit = { failures: 1, cooldownMs: 600_000 };
  await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: { circuit } }) });
  const [phone, operator] = [newPhone(gateway), newOperator(gateway)];
  upstream.script({}, faults.status(418), faults.status(418));
  const first = phone.add({ op: "create", recordId: tempId() });
  const second = phone.add({ op: "create", recordId: tempId() });
  expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected", "parked upstream-unexpected"]);
  upstream.always({}, faults.status(500));
  await operator.command(first.id, { command: "retry" });
  await upstream.received({}, 3);
  await operator.done(first.id);
  await operator.command(second.id, { command: "reject" });
  expect(await operator.done(second.id)).toEqual(["rejected"]);
});

test("a command that is given twice before it is carried out is carried out once", async () => {
  await using upstream = await startScriptedUpstream(storeOptions);
  await using gateway = await startGateway({ upstreams: capabilities(upstream.url, { timeoutMs: 2_000 }) });
  const [phone, marker, operator] = [newPhone(gateway), randomUUID(), newOperator(gateway)];
  upstream.script(bodyHas(marker), faults.loseReply(), faults.loseReply());
  const create = phone.add({ op: "create", entity: "opaque", recordId: tempId(), data: { marker } });
  expect(linesOf(await phone.replay({ wait: 25 }))).toEqual(["parked upstream-unclear"]);
  const order = { command: "retry" as const, reason: "not there" };
  const [other, gate] = [randomUUID(), Promise.withResolvers<void>()];
  upstream.script(bodyHas(other), faults.hold(gate.promise));
  phone.add({ op: "create", entity: "opaque", recordId: tempId(), data: { marker: other } });
  await phone.send({ wait: 0 });
  await upstream.received(bodyHas(other));
  await operator.command(create.id, order);
  await operator.command(create.id, order);
  gate.resolve();
  expect(await operator.done(create.id)).toEqual(["parked"]);
  expect(upstream.effects.filter(({ record }) => record?.includes(marker))).toHaveLength(2);
});

test("a key that was first used a moment ago is not taken for forgotten", { timeout: 60_000 }, async () => {
  await using upstream = await startScriptedUpstream({ idempotencyHeader: "Idempotency-Key" });
  const entity = { create: { class: "idempotency-key", keyTtlMs: 2_000 } };
  const retry = { baseMs: 10, capMs: 100 };
  await using gateway = await startGateway({
    upstreams: crm(upstream.url, { upstream: { ...quiet, retry }, entity }),
  });
  const [phone, marker, operator] = [newPhone(gateway), randomUUID(), newOperator(gateway)];
  const later = faults.status(429, { headers: { "retry-after": "3" } });
  upstream.script(bodyHas(marker), faults.status(418), later, faults.loseReply());
  const create = phone.add({ op: "create", recordId: tempId(), data: { marker } });
  expect(linesOf(await phone.replay({ wait: 25 }))).toEqual(["parked upstream-unexpected"]);
  await operator.command(create.id, { command: "retry" });
  await upstream.received(bodyHas(marker), 3);
  expect(linesOf(await phone.settled())).toEqual(["applied"]);
});

describe("one record is never given to two creates", { timeout: 60_000 }, () => {
  test("two operators name it at the same moment", async () => {
    await using upstream = await startScriptedUpstream({ etags: true });
    await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
    const operator = newOperator(gateway);
    const parked: string[] = [];
    for (const phone of [newPhone(gateway), newPhone(gateway)]) {
      const marker = randomUUID();
      upstream.script(bodyHas(marker), faults.status(418));
      parked.push(phone.add({ op: "create", recordId: tempId(), data: { marker } }).id);
      await phone.replay();
    }
    upstream.seed("activities", ['{"id":9000}']);
    const gate = Promise.withResolvers<void>();
    const reads = { method: "GET", path: "/activities/9000" };
    upstream.script(reads, faults.hold(gate.promise), faults.hold(gate.promise));
    for (const id of parked) await operator.command(id, { command: "applied", recordId: "9000" });
    await upstream.received(reads, 2);
    gate.resolve();
    const results = await Promise.all(parked.map(async (id) => (await operator.done(id))[0]));
    expect(results).toEqual(expect.arrayContaining(["applied", "parked"]));
    const named = await rowsOf(gateway.database, "select 1 from id_map where server_id = '9000'");
    expect(named).toHaveLength(1);
  });

  test("the other's answer comes after an operator has given it away", async () => {
    await using upstream = await startScriptedUpstream({ idempotencyHeader: "Idempotency-Key" });
    await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
    const [one, other, operator] = [newPhone(gateway), newPhone(gateway), newOperator(gateway)];
    const markers = [randomUUID(), randomUUID()] as const;
    upstream.script(bodyHas(markers[0]), faults.status(418));
    const parked = one.add({ op: "create", recordId: tempId(), data: { marker: markers[0] } });
    await one.replay();
    const later = faults.status(429, { headers: { "retry-after": "3" } });
    upstream.script(bodyHas(markers[1]), faults.loseReply(), later);
    other.add({ op: "create", recordId: tempId(), data: { marker: markers[1] } });
    await other.send({ wait: 0 });
    await upstream.received(bodyHas(markers[1]), 2);
    const recordId = upstream.effects[0]!.id;
    await operator.command(parked.id, { command: "applied", recordId });
    expect(await operator.done(parked.id)).toEqual(["applied"]);
    expect(linesOf(await other.settled())).toEqual(["parked upstream-unexpected"]);
    expect(await rowsOf(gateway.database, "select 1 from id_map")).toHaveLength(1);
  });
});

test(
  "what is parked behind an owner that died says that it may have been sent",
  { timeout: 90_000 },
  async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    const upstreams = capabilities(upstream.url, { timeoutMs: 2_000 });
    await using gateway = await startGateway({ upstreams, role: "api" });
    const [phone, marker, gate] = [newPhone(gateway), randomUUID(), Promise.withResolvers<void>()];
    upstream.script(bodyHas(marker), faults.hold(gate.promise, { effect: true }));
    {
      await using victim = await startWorkerProcess(gateway);
      phone.add({ op: "create", entity: "lookup", recordId: tempId(), data: { marker } });
      await phone.send({ wait: 0 });
      await upstream.received(bodyHas(marker));
      victim.signal("SIGKILL");
      await victim.exited;
    }
    const { crm: configured } = upstreams as { crm: { entities: Record<string, unknown> } };
    const { lookup: _, ...entities } = configured.entities;
    await using next = await startGateway({
      upstreams: { crm: { ...configured, entities } },
      role: "worker",
      database: gateway.database,
    });
    await expect.poll(async () => await outcomesOf(phone), patient).toEqual(["parked unknown-entity"]);
    gate.resolve();
    expect(await deliveriesOf(next.database, phone.clientId)).toMatchObject([{ possibly_sent: true }]);
  },
);
