import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { crm } from "../fixtures/crm.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions, type CapabilityClass } from "./capabilities.ts";
import { newOperator, type Operator } from "./operator.ts";
import { linesOf, newPhone, resultOf, toLine, type Phone } from "./phone.ts";
import { attemptsOf, deliveriesOf, laneOf, rowsOf } from "./rows.ts";

const quiet = { circuit: { failures: 10_000, cooldownMs: 20 } };

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
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

  /** A parked create of a mentor, and behind it, in two batches: what is held, and what passes. */
  async function withParked(phone: Phone) {
    const [mentor, activity, marker] = [tempId(), tempId(), randomUUID()];
    upstream.script(bodyHas(marker), faults.status(418, { body: "no" }));
    const add = (mutation: Parameters<Phone["add"]>[0]) => phone.add({ ...mutation, data: dataOf(mutation) });
    const dataOf = ({ op, data }: { op: string; data?: unknown }) =>
      op === "delete" ? undefined : { marker, ...(data as object) };
    const parked = add({ op: "create", entity: "mentor", recordId: mentor });
    const held = [add({ op: "create", recordId: activity, data: { mentor, n: 1 } })];
    await phone.replay({ wait: 2 });
    held.push(
      add({ op: "update", recordId: activity, data: { n: 2 } }),
      add({ op: "update", entity: "mentor", recordId: mentor.toUpperCase(), data: { n: 3 } }),
      add({ op: "create", recordId: tempId(), dependsOn: [held[0]?.id], data: { n: 4 } }),
      add({ op: "delete", recordId: activity }),
    );
    const free = add({ op: "create", recordId: tempId(), data: { n: 5 } });
    await phone.replay({ wait: 2 });
    return { marker, mentor, activity, parked, held, free };
  }

  /** What happened at the upstream to the records of a phone, in order. */
  const effectsOf = (marker: string): string[] => {
    const ours = new Set<string>();
    return upstream.effects.flatMap(({ op, collection, id, record, request }) => {
      if (record?.includes(marker)) ours.add(`${collection}/${id}`);
      if (!ours.has(`${collection}/${id}`)) return [];
      const { n } = JSON.parse(request.body.toString() || "{}") as { n?: number };
      return [`${op} ${collection}${n === undefined ? "" : ` ${n}`}`];
    });
  };

  const lined = ["create mentors", "create activities 1", "update activities 2", "update mentors 3"];
  const afterwards = [...lined, "create activities 4", "delete activities"];

  test("sent again, it is applied, and what was held behind it follows in order, over links and batches", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held, free } = await withParked(phone);
    expect(linesOf(await phone.outcomes())).toEqual([
      "parked upstream-unexpected",
      ...held.map(() => "pending"),
      "applied",
    ]);
    await operator.command(parked.id, { command: "retry", reason: "the mapping was corrected" });
    expect(linesOf(await phone.settled())).toEqual([parked, ...held, free].map(() => "applied"));
    expect(effectsOf(marker)).toEqual(["create activities 5", ...afterwards]);
    expect(await operator.done(parked.id)).toEqual(["applied"]);
    expect(await deliveriesOf(gateway.database, phone.clientId)).toEqual([]);
    expect(await laneOf(gateway.database, phone.clientId)).toMatchObject({
      due_in_ms: null,
      is_leased: false,
    });
  });

  test("with hold-lane, the lane goes on behind it", async () => {
    const phone = newPhone(gateway, { iss: "other" });
    const { marker, parked } = await withParked(phone);
    expect(effectsOf(marker)).toEqual([]);
    await newOperator(gateway, "other").command(parked.id, { command: "retry" });
    expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
    expect(effectsOf(marker)).toEqual([...afterwards, "create activities 5"]);
  });

  test("one that fails again is parked again, and what was held stays held", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held } = await withParked(phone);
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
    expect(effectsOf(marker)).toEqual(["create activities 5"]);
  });

  test("while it is retried, what was held waits, and nothing overtakes it", async () => {
    const phone = newPhone(gateway);
    const { marker, mentor, parked } = await withParked(phone);
    upstream.script(bodyHas(marker), faults.status(503), faults.loseReply(), faults.status(429));
    await operator.command(parked.id, { command: "retry" });
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { marker, n: 6 } });
    await phone.send({ wait: 0 });
    expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
    const [first, ...effects] = effectsOf(marker);
    // The reply that was lost had an effect, which the repeat replaces or repeats; whatever follows comes after it.
    expect(first).toBe("create activities 5");
    expect(effects.filter((effect) => effect !== "create mentors")).toEqual([
      ...afterwards.slice(1),
      "update mentors 6",
    ]);
  });

  test("given up, it is rejected with the reason, and its dependants fall by the usual rules", async () => {
    const phone = newPhone(gateway);
    const { marker, parked, held, free } = await withParked(phone);
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
    expect(effectsOf(marker)).toEqual(["create activities 5"]);
    const { body } = await phone.api.get(`/v1/changes?clientId=${phone.clientId}`);
    const told = (body.changes as { type: string; result?: { id: string; status: string } }[])
      .filter(({ result }) => result?.id === parked.id)
      .map(({ result }) => result?.status);
    expect(told).toEqual(["rejected"]);
  });

  test("a held one can be given up by itself", async () => {
    const phone = newPhone(gateway);
    const { parked, held } = await withParked(phone);
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
    const { marker, mentor, parked, held, free } = await withParked(phone);
    const id = String(100_000 + Math.floor(Math.random() * 100_000));
    upstream.seed("mentors", [JSON.stringify({ id, marker, name: "as it stands" })]);
    expect(await operator.ask(parked.id, { command: "applied" })).toMatchObject({ status: 400 });
    await operator.command(parked.id, { command: "applied", recordId: id });
    const results = await phone.settled();
    expect(linesOf(results)).toEqual([parked, ...held, free].map(() => "applied"));
    expect(resultOf(results, parked)).toMatchObject({ recordId: id, version: "1" });
    const { body } = await phone.api.get(`/v1/id-mappings?clientId=${phone.clientId}`);
    expect(body.idMappings).toContainEqual({ entity: "mentor", tempId: mentor, serverId: id });
    expect(effectsOf(marker)).not.toContain("create mentors");
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
    const { parked, free } = await withParked(phone);
    const taken = resultOf(await phone.outcomes(), free).recordId ?? "";
    const another = phone.add({ op: "create", recordId: tempId(), data: { marker: randomUUID() } });
    upstream.script(bodyHas((another.data as { marker: string }).marker), faults.status(418));
    await phone.replay({ wait: 2 });
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
    await phone.replay({ wait: 2 });
    const back = upstream.always({ method: "GET", path }, faults.status(418));
    await operator.command(update.id, { command: "applied" });
    expect(await operator.done(update.id)).toEqual(["applied"]);
    expect(resultOf(await phone.settled(), update)).toMatchObject({ status: "applied", version: "2" });
    back();
    const remove = phone.add({ op: "delete", recordId });
    await phone.replay({ wait: 2 });
    await operator.command(remove.id, { command: "applied" });
    expect(await operator.done(remove.id)).toEqual(["applied"]);
    expect(resultOf(await phone.settled(), remove)).toMatchObject({ status: "applied", version: "3" });
    const rows = await rowsOf(gateway.database, "select version, deleted from record where server_id = $1", [
      recordId,
    ]);
    expect(rows).toContainEqual({ version: "3", deleted: true });
    expect(upstream.effects.filter(({ id, op }) => id === recordId && op !== "create")).toEqual([]);
  });

  test("commands about one mutation are carried out in the order in which they were given", async () => {
    const phone = newPhone(gateway);
    const { marker, parked } = await withParked(phone);
    upstream.script(bodyHas(marker), faults.status(418));
    await whileLocked(gateway, phone.clientId, async (queued) => {
      const given = [operator.command(parked.id, { command: "retry" })];
      await queued(1);
      given.push(operator.command(parked.id, { command: "reject" }));
      await queued(2);
      given.push(operator.command(parked.id, { command: "retry" }));
      await queued(3);
      return given;
    });
    expect(await operator.done(parked.id)).toEqual(["parked", "rejected", "refused: it had ended"]);
    await phone.settled();
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

describe(
  "a mutation of which nobody knows whether it took effect, sent again by a person",
  { timeout: 60_000 },
  () => {
    let upstream: ScriptedUpstream;
    let gateway: TestGateway;
    let operator: Operator;
    beforeAll(async () => {
      upstream = await startScriptedUpstream(storeOptions);
      gateway = await startGateway({ upstreams: capabilities(upstream.url, { timeoutMs: 2_000 }) });
      operator = newOperator(gateway);
    });
    afterAll(async () => {
      await gateway?.close();
      await upstream?.stop();
    });

    async function parkUnclear(entity: CapabilityClass) {
      const [phone, marker] = [newPhone(gateway), randomUUID()];
      upstream.script(bodyHas(marker), faults.loseReply());
      // Nothing can be found out for as long as this lasts.
      const stopSearch = upstream.always({ method: "GET" }, faults.status(418));
      const create = phone.add({ op: "create", entity, recordId: tempId(), data: { marker } });
      await phone.send({ wait: 0 });
      await expect
        .poll(async () => linesOf(await phone.outcomes())[0], { timeout: 20_000 })
        .toMatch(/^parked/);
      stopSearch();
      const effects = () => upstream.effects.filter(({ record }) => record?.includes(marker)).length;
      expect(effects()).toBe(1);
      return { phone, marker, create, effects };
    }

    test("is looked for first where the upstream can tell", async () => {
      const { phone, create, effects } = await parkUnclear("lookup");
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(1);
    });

    test("is sent again, once, where only the person can tell", async () => {
      const { phone, create, effects } = await parkUnclear("opaque");
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(2);
    });

    test("starts afresh: a refusal that follows is retried, and not parked as unclear", async () => {
      const { phone, marker, create, effects } = await parkUnclear("opaque");
      upstream.script(bodyHas(marker), faults.status(429), faults.status(429));
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(2);
    });

    test.each(["opaque", "lookup"] as const)(
      "is not sent a second time by the same command when its owner is gone before the answer (%s)",
      async (entity) => {
        const { phone, marker, create, effects } = await parkUnclear(entity);
        // Only what lets the lookup find nothing makes it send again.
        const empty = upstream.always({ method: "GET" }, ({ send }) => send({ status: 200, body: "[]" }));
        const gate = Promise.withResolvers<void>();
        upstream.script(bodyHas(marker), faults.hold(gate.promise, { effect: true }));
        const sent = upstream.requests.filter(bodyHas(marker)).length;
        await operator.command(create.id, { command: "retry" });
        await upstream.received(bodyHas(marker), sent + 1);
        empty();
        // Another owner had it meanwhile, and died too.
        await rowsOf(
          gateway.database,
          "update lane set epoch = epoch + 1, lease_until = now(), due_at = now() where lane_id = $1",
          [phone.clientId],
        );
        await newOperator(gateway).now(phone.clientId);
        await expect
          .poll(async () => linesOf(await phone.outcomes())[0], { timeout: 20_000 })
          .toBe("parked upstream-unclear");
        gate.resolve();
        const stale = async () =>
          (await attemptsOf(gateway.database, create.id)).map((one) => one.disposition);
        await expect.poll(stale).toContain("stale");
        expect(toLine((await phone.outcomes())[0]!)).toBe("parked upstream-unclear");
        expect(effects()).toBe(2);
        expect(upstream.requests.filter(bodyHas(marker))).toHaveLength(sent + 1);
      },
    );
  },
);

/** Runs `start` while the lane's row is locked; `queued` waits until so many others stand in line for it. */
async function whileLocked(
  { database }: TestGateway,
  laneId: string,
  start: (queued: (count: number) => Promise<void>) => Promise<Promise<unknown>[]>,
): Promise<void> {
  const holder = new Client({ connectionString: database.superuserUrl });
  await holder.connect();
  try {
    await holder.query("set search_path to tidegate");
    await holder.query("begin");
    await holder.query("select 1 from lane where lane_id = $1 for update", [laneId]);
    const waiting =
      "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    const started = await start(async (count) => {
      await expect
        .poll(async () => (await rowsOf(database, waiting)).length, { timeout: 20_000 })
        .toBe(count);
    });
    await holder.query("commit");
    await Promise.all(started);
  } finally {
    await holder.end();
  }
}

function bodyHas(marker: string): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method === "POST" && body.toString().includes(marker);
}

const nOf = ({ body }: RecordedRequest): number => (JSON.parse(body.toString()) as { n: number }).n;
