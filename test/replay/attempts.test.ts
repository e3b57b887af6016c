import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { attemptsOf, laneOf, rowsOf, type AttemptRow } from "./rows.ts";

const quiet = { circuit: { failures: 10_000, cooldownMs: 20 } };

describe("every attempt at a mutation is kept", () => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  /** Queues a create that meets the faults, in turn. */
  function addCreate(phone: Phone, data: object, ...list: Fault[]) {
    const marker = randomUUID();
    upstream.script(bodyHas(marker), ...list);
    return { marker, ...phone.add({ op: "create", recordId: tempId(), data: { marker, ...data } }) };
  }

  const attempts = async ({ id }: { id: string }): Promise<AttemptRow[]> =>
    await attemptsOf(gateway.database, id);

  test("one that succeeds, with its status and who made it, and without what was answered", async () => {
    const phone = newPhone(gateway);
    const creates = Array.from({ length: 3 }, () => addCreate(phone, {}));
    await phone.replay();
    const { epoch } = await laneOf(gateway.database, phone.clientId);
    for (const create of creates) {
      const rows = await attempts(create);
      expect(rows).toMatchObject([
        { disposition: "applied", sent: true, http_status: 201, excerpt: null, record_id: null, epoch },
      ]);
      expect(rows[0]?.worker).toContain(String(process.pid));
      expect(rows[0]?.request_id).not.toBe("");
    }
  });

  test("those that fail, each with what became of it and what was answered", async () => {
    const phone = newPhone(gateway);
    const create = addCreate(
      phone,
      {},
      faults.status(429, { body: "slow down" }),
      faults.loseReply(),
      faults.status(500, { body: '{"message":"out of order"}' }),
      faults.status(422, { body: '{"errors":{"minutes":["too many"]}}' }),
    );
    expect(linesOf(await phone.replay())).toEqual(["rejected upstream-rejected"]);
    expect(await attempts(create)).toMatchObject([
      { disposition: "retry", sent: true, http_status: 429, excerpt: "slow down" },
      { disposition: "unclear", sent: true, http_status: null, excerpt: null },
      { disposition: "unclear", sent: true, http_status: 500, excerpt: '{"message":"out of order"}' },
      { disposition: "reject", sent: true, http_status: 422, excerpt: '{"errors":{"minutes":["too many"]}}' },
    ]);
  });

  test("a conflict, with the answer to the change and not to the look that followed", async () => {
    const phone = newPhone(gateway);
    phone.add({ op: "create", recordId: tempId(), data: { minutes: 45 } });
    const [created] = await phone.replay();
    const path = `/activities/${created?.recordId}`;
    upstream.script({ method: "PATCH", path }, faults.status(409, { body: "taken" }));
    const update = phone.add({ op: "update", recordId: created?.recordId ?? "", data: { minutes: 50 } });
    expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
    expect(await attempts(update)).toMatchObject([
      { disposition: "conflict", sent: true, http_status: 409, excerpt: "taken" },
    ]);
  });

  test("what an answer repeats of the mutation is not kept, here or as evidence", async () => {
    const phone = newPhone(gateway);
    const data = { mentor: "Kari Nordmann", minutes: 1441, peer: "a peer in Ål" };
    const body = `{"error":"1441 is too many for Kari Nordmann","record":${JSON.stringify(data)}}`;
    const create = addCreate(phone, data, faults.status(418, { body }));
    await phone.replay();
    const excerpt = '{"error":"… is too many for …","record":{"mentor":"…","minutes":"…","peer":"…"}}';
    expect(await attempts(create)).toMatchObject([{ disposition: "park", excerpt }]);
    const evidence = await rowsOf(
      gateway.database,
      "select convert_from(evidence, 'UTF8') as evidence from delivery where mutation_id = $1",
      [create.id],
    );
    expect(evidence).toEqual([{ evidence: excerpt }]);
  });

  test("an answer that comes after another owner took the lane is evidence, and no outcome", async () => {
    const phone = newPhone(gateway);
    const gate = Promise.withResolvers<void>();
    const { marker, id } = addCreate(phone, {}, faults.hold(gate.promise, { effect: true }));
    const other = newPhone(gateway);
    const beside = addCreate(other, {}, faults.hold(gate.promise));
    await Promise.all([phone.send({ wait: 0 }), other.send({ wait: 0 })]);
    await Promise.all([upstream.received(bodyHas(marker)), upstream.received(bodyHas(beside.marker))]);
    await rowsOf(
      gateway.database,
      "update lane set epoch = epoch + 1, lease_until = now(), due_at = now() + interval '1 hour' where lane_id = $1",
      [phone.clientId],
    );
    gate.resolve();
    expect(linesOf(await other.settled())).toEqual(["applied"]);
    await expect.poll(async () => await attempts({ id })).toHaveLength(1);
    const made = upstream.effects.find(({ record }) => record?.includes(marker));
    expect(await attempts({ id })).toMatchObject([
      { disposition: "stale", sent: true, http_status: 201, record_id: made?.id, epoch: "1" },
    ]);
    expect(linesOf(await phone.outcomes())).toEqual(["pending"]);
    expect(await attempts(beside)).toMatchObject([{ disposition: "applied" }]);
    await rowsOf(gateway.database, "update lane set due_at = now() where lane_id = $1", [phone.clientId]);
    await phone.settled();
    expect((await attempts({ id })).map(({ disposition }) => disposition)).toEqual(["stale", "applied"]);
  });
});

describe("an attempt that was not sent is told apart from one that was", () => {
  const unsent = { disposition: "retry", sent: false, http_status: null, excerpt: null, duration_ms: 0 };

  test("by a connection that was refused", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
    await upstream.stop();
    const phone = newPhone(gateway);
    const { id } = phone.add({ op: "create", recordId: tempId() });
    await phone.send({ wait: 0 });
    await expect.poll(async () => await attemptsOf(gateway.database, id)).not.toEqual([]);
    for (const attempt of await attemptsOf(gateway.database, id)) expect(attempt).toMatchObject(unsent);
    await upstream.start();
    await phone.settled();
    const last = (await attemptsOf(gateway.database, id)).at(-1);
    expect(last).toMatchObject({ disposition: "applied", sent: true, http_status: 201 });
  });

  test("by a breaker that opened while it waited for its place", async () => {
    await using upstream = await startScriptedUpstream();
    const settings = { concurrency: 1, circuit: { failures: 1, cooldownMs: 60_000 } };
    await using gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: settings }) });
    const gate = Promise.withResolvers<void>();
    upstream.script({}, async ({ send }) => {
      await gate.promise;
      send({ status: 500 });
    });
    const phones = [newPhone(gateway), newPhone(gateway)];
    const ids = phones.map((phone) => phone.add({ op: "create", recordId: tempId() }).id);
    await phones[0]?.send({ wait: 0 });
    await upstream.received({});
    await phones[1]?.send({ wait: 0 });
    const inHand = async () => (await laneOf(gateway.database, phones[1]?.clientId ?? "")).is_leased;
    await expect.poll(inHand).toBe(true);
    gate.resolve();
    await expect.poll(async () => await attemptsOf(gateway.database, ids[1] ?? "")).toMatchObject([unsent]);
    expect((await attemptsOf(gateway.database, ids[0] ?? ""))[0]).toMatchObject({
      disposition: "unclear",
      sent: true,
      http_status: 500,
    });
    expect(upstream.requests).toHaveLength(1);
  });
});

function bodyHas(marker: string): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method === "POST" && body.toString().includes(marker);
}
