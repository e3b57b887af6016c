import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone, resultOf, toLine, type Phone } from "./phone.ts";
import { deliveriesOf } from "./rows.ts";

const note = { path: "/notes", id: "/id", create: { class: "idempotency-key" }, update: { class: "upsert" } };

describe.each(queueBackends())("on %s", (queues) => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    const upstreams = crm(upstream.url) as { crm: { entities: object } };
    Object.assign(upstreams.crm.entities, { note });
    // There what waits looks for itself only after half a minute or so.
    const patient = crm(upstream.url, { upstream: { retry: { baseMs: 600_000, capMs: 900_000 } } });
    gateway = await startGateway({ queues, upstreams, otherUpstreams: patient });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  /** The record that was created with this marker, as the upstream holds it. */
  function recordOf(collection: string, marker: string): Record<string, unknown> {
    const found = upstream.records(collection).filter((text) => text.includes(marker));
    expect(found).toHaveLength(1);
    return JSON.parse(found[0] ?? "");
  }

  async function waitsFor({ clientId }: Phone): Promise<string | null | undefined> {
    return (await deliveriesOf(gateway.database, clientId))[0]?.blocked_by;
  }

  test("a temp ID of an earlier batch is replaced wherever it stands, in any letter case", async () => {
    const phone = newPhone(gateway);
    const [mentor, marker] = [tempId(), randomUUID()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: {} });
    const [created] = await phone.replay();
    const [id, upper] = [created?.recordId, mentor.toUpperCase()];
    phone.add({
      op: "create",
      entity: "note",
      recordId: tempId(),
      data: {
        marker,
        upper,
        deep: { list: [[{ mentor }], "x", mentor] },
        text: `about ${mentor}`,
        [mentor]: "key",
      },
    });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    expect(recordOf("notes", marker)).toMatchObject({
      upper: id,
      deep: { list: [[{ mentor: id }], "x", id] },
      // Neither part of a text nor a name is a reference.
      text: `about ${mentor}`,
      [mentor]: "key",
    });
  });

  test("with declared references only those are replaced, also in a list", async () => {
    const phone = newPhone(gateway);
    const [mentor, marker] = [tempId(), randomUUID()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor.toUpperCase(), data: {} });
    const data = { marker, mentor: [mentor, mentor.toUpperCase()], other: mentor };
    phone.add({ op: "create", recordId: tempId(), data });
    const [created, activity] = await phone.replay();
    expect(activity).toMatchObject({ status: "applied" });
    const id = created?.recordId;
    expect(recordOf("activities", marker)).toMatchObject({ mentor: [id, id], other: mentor });
  });

  test("a temp ID that nobody has created is rejected, and so is one of another entity's record", async () => {
    const phone = newPhone(gateway);
    const mentor = tempId();
    phone.add({ op: "create", recordId: tempId(), data: { mentor: tempId() } });
    phone.add({ op: "update", recordId: tempId(), data: { minutes: 1 } });
    phone.add({ op: "delete", recordId: tempId() });
    phone.add({ op: "create", entity: "mentor", recordId: mentor });
    phone.add({ op: "update", entity: "activity", recordId: mentor, data: { minutes: 1 } });
    expect(linesOf(await phone.replay())).toEqual([
      "rejected unknown-reference",
      "rejected unknown-reference",
      "rejected unknown-reference",
      "applied",
      "rejected not-found",
    ]);
  });

  test("a create that comes later in the same log can't be referred to", async () => {
    const phone = newPhone(gateway);
    const mentor = tempId();
    phone.add({ op: "create", recordId: tempId(), data: { mentor } });
    phone.add({ op: "create", entity: "mentor", recordId: mentor });
    phone.add({ op: "create", recordId: tempId(), data: { mentor } });
    expect(linesOf(await phone.replay())).toEqual(["rejected unknown-reference", "applied", "applied"]);
  });

  test("what needs another phone's create waits, is not told for whose, and goes on when that is applied", async () => {
    const maker = newPhone(gateway, { iss: "other" });
    const users = Array.from({ length: 6 }, () => newPhone(gateway, { iss: "other" }));
    const [mentor, marker] = [tempId(), randomUUID()];
    const gate = Promise.withResolvers<void>();
    upstream.script(bodyHas(marker), faults.hold(gate.promise));
    const create = maker.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    const made = maker.replay();
    await upstream.received(bodyHas(marker));
    for (const user of users) {
      user.add({ op: "create", recordId: tempId(), data: { mentor, by: user.clientId } });
      user.add({ op: "create", recordId: tempId(), data: { minutes: 1 } });
      await user.send({ wait: 0 });
      await expect.poll(async () => await waitsFor(user)).toBe(create.id);
      expect(await user.outcomes()).toMatchObject([pending, pending]);
    }
    gate.resolve();
    expect(linesOf(await made)).toEqual(["applied"]);
    for (const user of users) {
      expect(linesOf(await user.settled(4_000))).toEqual(["applied", "applied"]);
      expect(recordOf("activities", user.clientId)).toMatchObject({
        mentor: String(recordOf("mentors", marker)["id"]),
      });
    }
  });

  test("what waits for a create that is rejected, is rejected", async () => {
    const [maker, user] = [newPhone(gateway), newPhone(gateway)];
    const [mentor, marker] = [tempId(), randomUUID()];
    const gate = Promise.withResolvers<void>();
    upstream.script(bodyHas(marker), async ({ send }) => {
      await gate.promise;
      send({ status: 422 });
    });
    const create = maker.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    const made = maker.replay();
    await upstream.received(bodyHas(marker));
    user.add({ op: "create", recordId: tempId(), data: { mentor } });
    await user.send({ wait: 0 });
    await expect.poll(async () => await waitsFor(user)).toBeTypeOf("string");
    gate.resolve();
    expect(linesOf(await made)).toEqual(["rejected upstream-rejected"]);
    const [result] = await user.settled(3_000);
    expect(toLine(result!)).toBe("rejected dependency-failed");
    expect(JSON.stringify(result)).not.toContain(create.id);
  });

  test("a rejected create takes with it whatever builds on it, and nothing else", async () => {
    const phone = newPhone(gateway);
    const [mentor, activity, marker] = [tempId(), tempId(), randomUUID()];
    upstream.script(bodyHas(marker), faults.status(422));
    const create = phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { name: "x" } });
    phone.add({ op: "create", recordId: activity, data: { mentor } });
    phone.add({ op: "update", recordId: activity, data: { minutes: 1 } });
    phone.add({ op: "create", entity: "note", recordId: tempId(), dependsOn: [create.id] });
    phone.add({ op: "create", entity: "note", recordId: tempId() });
    expect(linesOf(await phone.replay())).toEqual([
      "rejected upstream-rejected",
      "rejected dependency-failed",
      "rejected dependency-failed",
      "rejected dependency-failed",
      "rejected dependency-failed",
      "applied",
    ]);
    // By now the client knows what became of it, and means it all the same.
    phone.add({ op: "create", entity: "note", recordId: tempId(), dependsOn: [create.id] });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
  });

  test("a new create of the same temp ID takes the place of a rejected one", async () => {
    const phone = newPhone(gateway);
    const [mentor, marker] = [tempId(), randomUUID()];
    upstream.script(bodyHas(marker), faults.status(400));
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    phone.add({ op: "create", recordId: tempId(), data: { mentor } });
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker, name: "again" } });
    phone.add({ op: "create", recordId: tempId(), data: { mentor, by: marker } });
    const lines = linesOf(await phone.replay());
    expect(lines).toEqual(["rejected upstream-rejected", "rejected dependency-failed", "applied", "applied"]);
    expect(recordOf("activities", marker)).toMatchObject({
      mentor: String(recordOf("mentors", marker)["id"]),
    });
  });

  test("a second create of a temp ID that lives is rejected, of one's own and of another phone's", async () => {
    const [phone, other] = [newPhone(gateway), newPhone(gateway)];
    const mentor = tempId();
    phone.add({ op: "create", entity: "mentor", recordId: mentor });
    phone.add({ op: "create", entity: "mentor", recordId: mentor });
    phone.add({ op: "create", entity: "note", recordId: mentor });
    expect(linesOf(await phone.replay())).toEqual([
      "applied",
      "rejected temp-id-in-use",
      "rejected temp-id-in-use",
    ]);
    other.add({ op: "create", entity: "mentor", recordId: mentor });
    expect(linesOf(await other.replay())).toEqual(["rejected temp-id-in-use"]);
  });

  test("two phones that create one temp ID at the same moment make one record", async () => {
    const phones = [newPhone(gateway), newPhone(gateway)];
    const [mentor, marker] = [tempId(), randomUUID()];
    for (const phone of phones) {
      phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    }
    const lines = await Promise.all(phones.map(async (phone) => linesOf(await phone.replay())[0]));
    const [second, ...more] = lines.filter((line) => line !== "applied");
    expect(more).toEqual([]);
    // The one that came second was not sent; or, if neither could see the other in time, a person decides about it.
    expect(["rejected temp-id-in-use", "parked temp-id-in-use"]).toContain(second);
    const made = upstream.records("mentors").filter((text) => text.includes(marker));
    expect(made).toHaveLength(lines.includes("rejected temp-id-in-use") ? 1 : 2);
    const { body } = await phones[0]!.api.get(`/v1/id-mappings?clientId=${phones[0]!.clientId}`);
    const { body: others } = await phones[1]!.api.get(`/v1/id-mappings?clientId=${phones[1]!.clientId}`);
    expect([...body.idMappings, ...others.idMappings]).toHaveLength(1);
  });

  test("the update and the delete of a record can be given by temp ID or by server ID", async () => {
    const phone = newPhone(gateway);
    const [activity, marker] = [tempId(), randomUUID()];
    phone.add({ op: "create", recordId: activity, data: { marker, minutes: 1 } });
    const [created] = await phone.replay();
    phone.add({ op: "update", recordId: activity.toUpperCase(), data: { minutes: 2 } });
    phone.add({ op: "update", recordId: created?.recordId ?? "", data: { hours: 3 } });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
    expect(recordOf("activities", marker)).toMatchObject({ minutes: 2, hours: 3 });
    const gone = phone.add({ op: "delete", recordId: activity });
    expect(toLine(resultOf(await phone.replay(), gone))).toBe("applied");
    expect(upstream.records("activities").filter((text) => text.includes(marker))).toEqual([]);
  });
});

const pending = { status: "pending", blockedBy: null };

function bodyHas(marker: string): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method === "POST" && body.toString().includes(marker);
}
