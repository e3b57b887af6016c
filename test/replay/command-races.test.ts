import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { whileLocked } from "./locked.ts";
import { newOperator, type Operator } from "./operator.ts";
import { bodyHas, quiet } from "./parked.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { deliveriesOf, laneOf, rowsOf } from "./rows.ts";

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  let operator: Operator;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    gateway = await startGateway({ queues, upstreams: crm(upstream.url, { upstream: quiet }) });
    operator = newOperator(gateway);
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test("commands about one mutation are carried out in the order in which they were given", async () => {
    const phone = newPhone(gateway);
    const { gate, parked, marker } = await inHand(phone);
    upstream.script((request) => bodyHas(marker)(request) && nOf(request) === 0, faults.status(418));
    await operator.command(parked.id, { command: "retry" });
    await operator.command(parked.id, { command: "reject" });
    await operator.command(parked.id, { command: "retry" });
    gate.resolve();
    expect(await operator.done(parked.id)).toEqual(["parked", "rejected", "refused: it had ended"]);
    await phone.settled();
  });

  async function expectAllDone(phone: Phone, marker: string, decision: "retry" | "reject") {
    const lines = linesOf(await phone.settled());
    const order = upstream.effects.flatMap(({ request }) => (bodyHas(marker)(request) ? [nOf(request)] : []));
    if (decision === "retry") {
      expect(lines).toEqual(["applied", "applied", "applied", "applied"]);
      expect(order).toEqual([2, 0, 1, 3]);
    } else {
      const fallen = "rejected dependency-failed";
      expect(lines).toEqual(["rejected rejected-by-operator", fallen, "applied", fallen]);
      expect(order).toEqual([2]);
    }
    expect(await deliveriesOf(gateway.database, phone.clientId)).toEqual([]);
    expect(await rowsOf(gateway.database, "select 1 from command where done_at is null")).toEqual([]);
  }

  /** A lane in hand, whose owner is about to hold one more behind the parked one, and to give the lane back. */
  async function inHand(phone: Phone) {
    const [mentor, marker, gate] = [tempId(), randomUUID(), Promise.withResolvers<void>()];
    const is = (n: number) => (request: RecordedRequest) => bodyHas(marker)(request) && nOf(request) === n;
    upstream.script(is(0), faults.status(418));
    upstream.script(is(2), faults.hold(gate.promise));
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker, n: 0 } });
    phone.add({ op: "create", recordId: tempId(), data: { marker, mentor, n: 1 } });
    phone.add({ op: "create", recordId: tempId(), data: { marker, n: 2 } });
    phone.add({ op: "create", recordId: tempId(), data: { marker, mentor, n: 3 } });
    const batch = phone.batch();
    await phone.api.upload(batch, { wait: 0 });
    await upstream.received(is(2));
    return { gate, parked: batch.mutations[0]!, marker };
  }

  describe("a release that races the worker's own holding and giving back strands nothing", () => {
    const decisions = ["retry", "reject"] as const;
    const rounds = Array.from({ length: 6 }, (_, round) => decisions[round % 2]!);

    test.each(rounds)("given while a call is under way (%s)", async (decision) => {
      const phone = newPhone(gateway);
      const { gate, parked, marker } = await inHand(phone);
      await operator.command(parked.id, { command: decision });
      gate.resolve();
      await expectAllDone(phone, marker, decision);
    });

    test.each(rounds)("right before the owner's commit (%s)", async (decision) => {
      const phone = newPhone(gateway);
      const { gate, parked, marker } = await inHand(phone);
      await whileLocked(gateway, phone.clientId, async (queued) => {
        const given = operator.command(parked.id, { command: decision });
        await queued(1);
        gate.resolve();
        await queued(2);
        return [given];
      });
      await expectAllDone(phone, marker, decision);
    });

    test.each(rounds)("right behind the owner's commit (%s)", async (decision) => {
      const phone = newPhone(gateway);
      const { gate, parked, marker } = await inHand(phone);
      await whileLocked(gateway, phone.clientId, async (queued) => {
        gate.resolve();
        await queued(1);
        const given = operator.command(parked.id, { command: decision });
        await queued(2);
        return [given];
      });
      await expectAllDone(phone, marker, decision);
    });

    test("at any moment, many times at once", async () => {
      const phones = Array.from({ length: 12 }, () => newPhone(gateway));
      await Promise.all(
        phones.map(async (phone, index) => {
          const [mentor, marker] = [tempId(), randomUUID()];
          upstream.script((request) => bodyHas(marker)(request) && nOf(request) === 0, faults.status(418));
          const parked = phone.add({
            op: "create",
            entity: "mentor",
            recordId: mentor,
            data: { marker, n: 0 },
          });
          for (let n = 1; n < 12; n++) {
            phone.add({ op: "create", recordId: tempId(), data: { marker, n, ...(n % 2 && { mentor }) } });
          }
          await phone.send({ wait: 0 });
          const taken = async () => (await operator.ask(parked.id, { command: "retry" })).status;
          await expect.poll(taken, { interval: 1 + (index % 5), timeout: 20_000 }).toBe(202);
          expect(linesOf(await phone.settled(40_000))).toEqual(Array.from({ length: 12 }, () => "applied"));
          const order = upstream.effects.flatMap(({ request }) =>
            bodyHas(marker)(request) ? [nOf(request)] : [],
          );
          const dependants = order.filter((n) => n % 2 === 1 || n === 0);
          expect(dependants).toEqual([0, 1, 3, 5, 7, 9, 11]);
          expect(order.filter((n) => n % 2 === 0 && n > 0)).toEqual([2, 4, 6, 8, 10]);
        }),
      );
    });
  });
});

describe.each(queueBackends())("on %s, an operator's now", { timeout: 60_000 }, (queues) => {
  const patient = { ...quiet, retry: { baseMs: 900_000, capMs: 900_000 } };

  test("starts a lane at once that waits out a long backoff", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url, { upstream: patient }) });
    const phone = newPhone(gateway);
    upstream.script({}, faults.status(429, { headers: { "retry-after": "900" } }));
    phone.add({ op: "create", recordId: tempId() });
    await phone.send({ wait: 0 });
    await expect
      .poll(async () => (await laneOf(gateway.database, phone.clientId)).due_in_ms)
      .toBeGreaterThan(800_000);
    await newOperator(gateway).now(phone.clientId);
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
  });

  test("is not lost on a lane whose call is under way and will fail", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url, { upstream: patient }) });
    const phone = newPhone(gateway);
    const gate = Promise.withResolvers<void>();
    upstream.script({}, async ({ send }) => {
      await gate.promise;
      send({ status: 429, headers: { "retry-after": "900" } });
    });
    phone.add({ op: "create", recordId: tempId() });
    await phone.send({ wait: 0 });
    await upstream.received({});
    await newOperator(gateway).now(phone.clientId);
    gate.resolve();
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
  });

  test("and a decision that needs no upstream is carried out while the upstream is down", async () => {
    await using upstream = await startScriptedUpstream();
    const circuit = { failures: 1, cooldownMs: 600_000 };
    await using gateway = await startGateway({
      queues,
      upstreams: crm(upstream.url, { upstream: { circuit } }),
    });
    const phone = newPhone(gateway);
    upstream.script({}, faults.status(418));
    const parked = phone.add({ op: "create", recordId: tempId() });
    expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected"]);
    upstream.always({}, faults.status(500));
    phone.add({ op: "create", recordId: tempId() });
    await phone.send({ wait: 0 });
    await upstream.received({}, 2);
    const operator = newOperator(gateway);
    await operator.command(parked.id, { command: "reject" });
    expect(await operator.done(parked.id)).toEqual(["rejected"]);
  });
});

const nOf = ({ body }: RecordedRequest): number => (JSON.parse(body.toString()) as { n: number }).n;
