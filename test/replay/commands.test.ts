import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newOperator, type Operator } from "./operator.ts";
import { bodyHas, effectsOf, quiet, withParked } from "./parked.ts";
import { linesOf, newPhone, resultOf, toLine } from "./phone.ts";
import { deliveriesOf, laneOf, rowsOf } from "./rows.ts";

describe("whatever the queues are on", { timeout: 60_000 }, () => {
  const queues = "postgres";

  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  let operator: Operator;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    gateway = await startGateway({
      queues,
      upstreams: crm(upstream.url, { upstream: quiet }),
      otherUpstreams: crm(upstream.url, { upstream: { ...quiet, onPark: "hold-lane" } }),
    });
    operator = newOperator(gateway);
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  const lined = ["create mentors", "create activities 1", "update activities 2", "update mentors 3"];
  const afterwards = [...lined, "create activities 4", "delete activities"];

  test("sent again, it is applied, and what was held behind it follows in order, over links and batches", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held, free } = await withParked(upstream, phone);
    expect(linesOf(await phone.outcomes())).toEqual([
      "parked upstream-unexpected",
      ...held.map(() => "pending"),
      "applied",
    ]);
    await operator.command(parked.id, { command: "retry", reason: "the mapping was corrected" });
    expect(linesOf(await phone.settled())).toEqual([parked, ...held, free].map(() => "applied"));
    expect(effectsOf(upstream, marker)).toEqual(["create activities 5", ...afterwards]);
    expect(await operator.done(parked.id)).toEqual(["applied"]);
    expect(await deliveriesOf(gateway.database, phone.clientId)).toEqual([]);
    expect(await laneOf(gateway.database, phone.clientId)).toMatchObject({
      due_in_ms: null,
      is_leased: false,
    });
  });

  test("with hold-lane, the lane goes on behind it", async () => {
    const phone = newPhone(gateway, { iss: "other" });
    const { marker, parked } = await withParked(upstream, phone, { holdsLane: true });
    expect(effectsOf(upstream, marker)).toEqual([]);
    await newOperator(gateway, "other").command(parked.id, { command: "retry" });
    expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
    expect(effectsOf(upstream, marker)).toEqual([...afterwards, "create activities 5"]);
  });

  test("one that fails again is parked again, and what was held stays held", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held } = await withParked(upstream, phone);
    const before = await deliveriesOf(gateway.database, phone.clientId);
    upstream.script(bodyHas(marker), faults.status(418));
    await operator.command(parked.id, { command: "retry" });
    expect(await operator.done(parked.id)).toEqual(["parked"]);
    await expect.poll(async () => (await laneOf(gateway.database, phone.clientId)).is_leased).toBe(false);
    const after = await deliveriesOf(gateway.database, phone.clientId);
    expect(after.map(({ state, blocked_by }) => [state, blocked_by])).toEqual(
      before.map(({ state, blocked_by }) => [state, blocked_by]),
    );
    expect(after).toHaveLength(1 + held.length);
    expect(effectsOf(upstream, marker)).toEqual(["create activities 5"]);
  });

  test("while it is retried, what was held waits, and nothing overtakes it", async () => {
    const phone = newPhone(gateway);
    const { marker, mentor, parked } = await withParked(upstream, phone);
    upstream.script(bodyHas(marker), faults.status(503), faults.loseReply(), faults.status(429));
    await operator.command(parked.id, { command: "retry" });
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { marker, n: 6 } });
    await phone.send({ wait: 0 });
    expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
    const [first, ...effects] = effectsOf(upstream, marker);
    // The reply that was lost had an effect, which the repeat replaces or repeats; whatever follows comes after it.
    expect(first).toBe("create activities 5");
    expect(effects.filter((effect) => effect !== "create mentors")).toEqual([
      ...afterwards.slice(1),
      "update mentors 6",
    ]);
  });

  test("given up, it is rejected with the reason, and its dependants fall by the usual rules", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held, free } = await withParked(upstream, phone);
    await operator.command(parked.id, { command: "reject", reason: "registered twice" });
    const results = await phone.settled();
    expect(resultOf(results, parked)).toMatchObject({
      status: "rejected",
      problem: { type: "urn:tidegate:problem:rejected-by-operator", detail: "registered twice" },
    });
    expect(held.map((mutation) => toLine(resultOf(results, mutation)))).toEqual(
      held.map(() => "rejected dependency-failed"),
    );
    expect(toLine(resultOf(results, free))).toBe("applied");
    expect(effectsOf(upstream, marker)).toEqual(["create activities 5"]);
    const { body } = await phone.api.get(`/v1/changes?clientId=${phone.clientId}`);
    const told = (body.changes as { type: string; result?: { id: string; status: string } }[])
      .filter(({ result }) => result?.id === parked.id)
      .map(({ result }) => result?.status);
    expect(told).toEqual(["rejected"]);
  });

  test("a held one can be given up by itself", async () => {
    const phone = newPhone(gateway);
    const { parked, held } = await withParked(upstream, phone);
    await operator.command(held[2]?.id ?? "", { command: "reject" });
    expect(await operator.done(held[2]?.id ?? "")).toEqual(["rejected"]);
    await operator.command(parked.id, { command: "retry" });
    const results = await phone.settled();
    expect(held.map((mutation) => toLine(resultOf(results, mutation)))).toEqual([
      "applied",
      "applied",
      "rejected rejected-by-operator",
      "applied",
      "applied",
    ]);
  });

  test("a create that a person found in the upstream is applied under its ID, as it stands there", async () => {
    const phone = newPhone(gateway);
    const { marker, mentor, parked, held, free } = await withParked(upstream, phone);
    const id = String(100_000 + Math.floor(Math.random() * 100_000));
    upstream.seed("mentors", [JSON.stringify({ id, marker, name: "as it stands" })]);
    expect(await operator.ask(parked.id, { command: "applied" })).toMatchObject({ status: 400 });
    await operator.command(parked.id, { command: "applied", recordId: id });
    const results = await phone.settled();
    expect(linesOf(results)).toEqual([parked, ...held, free].map(() => "applied"));
    expect(resultOf(results, parked)).toMatchObject({ recordId: id, version: "1" });
    const { body } = await phone.api.get(`/v1/id-mappings?clientId=${phone.clientId}`);
    expect(body.idMappings).toContainEqual({ entity: "mentor", tempId: mentor, serverId: id });
    expect(effectsOf(upstream, marker)).not.toContain("create mentors");
    const created = upstream.effects.find(
      ({ record }) => record?.includes(marker) && record.includes('"n":1'),
    );
    expect(JSON.parse(created?.record ?? "{}")).toMatchObject({ mentor: id });
    const { body: feed } = await phone.api.get(`/v1/changes?clientId=${phone.clientId}&limit=500`);
    expect(feed.changes).toContainEqual(
      expect.objectContaining({
        type: "upsert",
        id,
        data: expect.objectContaining({ name: "as it stands" }),
      }),
    );
  });

  test("an ID that the upstream does not know, or that is another create's, is refused and changes nothing", async () => {
    const phone = newPhone(gateway);
    const { parked, free } = await withParked(upstream, phone);
    const taken = resultOf(await phone.outcomes(), free).recordId ?? "";
    const another = phone.add({ op: "create", recordId: tempId(), data: { marker: randomUUID() } });
    upstream.script(bodyHas((another.data as { marker: string }).marker), faults.status(418));
    await phone.replay({ wait: 25 });
    await operator.command(parked.id, { command: "applied", recordId: "no-such-record" });
    await operator.command(another.id, { command: "applied", recordId: taken });
    expect(await operator.done(parked.id)).toEqual(["refused: the upstream has no such record"]);
    expect(await operator.done(another.id)).toEqual(["refused: the record is another create's"]);
    const results = await phone.outcomes();
    expect(toLine(resultOf(results, parked))).toBe("parked upstream-unexpected");
    expect(toLine(resultOf(results, another))).toBe("parked upstream-unexpected");
  });

  test("what the upstream can't show is recorded as the phone sent it", async () => {
    const phone = newPhone(gateway);
    phone.add({ op: "create", recordId: tempId(), data: { minutes: 45 } });
    const [{ recordId = "" } = {}] = await phone.replay();
    const path = `/activities/${recordId}`;
    upstream.script({ method: "PATCH", path }, faults.status(418));
    upstream.script({ method: "DELETE", path }, faults.status(418));
    const update = phone.add({ op: "update", recordId, data: { minutes: 50 } });
    await phone.replay({ wait: 25 });
    const back = upstream.always({ method: "GET", path }, faults.status(418));
    await operator.command(update.id, { command: "applied" });
    expect(await operator.done(update.id)).toEqual(["applied"]);
    expect(resultOf(await phone.settled(), update)).toMatchObject({ status: "applied", version: "2" });
    back();
    const remove = phone.add({ op: "delete", recordId });
    await phone.replay({ wait: 25 });
    await operator.command(remove.id, { command: "applied" });
    expect(await operator.done(remove.id)).toEqual(["applied"]);
    expect(resultOf(await phone.settled(), remove)).toMatchObject({ status: "applied", version: "3" });
    const rows = await rowsOf(gateway.database, "select version, deleted from record where server_id = $1", [
      recordId,
    ]);
    expect(rows).toContainEqual({ version: "3", deleted: true });
    expect(upstream.effects.filter(({ id, op }) => id === recordId && op !== "create")).toEqual([]);
  });

  test("a mutation that has ended, is on its way, or is nowhere, takes no command", async () => {
    const phone = newPhone(gateway);
    const done = phone.add({ op: "create", recordId: tempId() });
    await phone.replay();
    const [gate, marker] = [Promise.withResolvers<void>(), randomUUID()];
    upstream.script(bodyHas(marker), faults.hold(gate.promise));
    const underWay = phone.add({ op: "create", recordId: tempId(), data: { marker } });
    await phone.send({ wait: 0 });
    await upstream.received(bodyHas(marker));
    for (const { id } of [done, underWay]) {
      expect(await operator.ask(id, { command: "retry" })).toMatchObject({
        status: 409,
        body: { type: "urn:tidegate:problem:command-refused" },
      });
    }
    gate.resolve();
    expect(await operator.ask(randomUUID(), { command: "retry" })).toMatchObject({ status: 404 });
    await phone.settled();
  });
});
