import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, expect, test } from "vitest";

import { payloadPruner } from "../../src/maintenance/pruners.ts";
import { pruneBatch } from "../../src/maintenance/round.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newOperator } from "../replay/operator.ts";
import { effectsOf, quiet, withParked } from "../replay/parked.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { added, bothHold, caughtUp, startPair } from "../shadows/pair.ts";
import { ageBy, dayMs, makeDue, payloadsOf, roundsIn, type Rounds } from "./rounds.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let rounds: Rounds;
beforeAll(async () => {
  upstream = await startScriptedUpstream({ etags: true });
  gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
  rounds = roundsIn(gateway.database);
});
afterAll(async () => {
  await rounds?.[Symbol.asyncDispose]();
  await gateway?.close();
  await upstream?.stop();
});

const afterDays = (days: number) => payloadPruner({ keepMs: days * dayMs, blocksMax: 2 });
const atOnce = afterDays(0);
const payloads = async (phone: Phone) => await payloadsOf(gateway.database, phone.clientId);

async function sendCreates(phone: Phone, batches: number): Promise<void> {
  for (let n = 0; n < batches; n++) {
    phone.add({ op: "create", recordId: tempId(), data: { n } });
    expect(linesOf(await phone.replay({ wait: 25 }))).toEqual(["applied"]);
  }
}

test("a payload goes when its time after the outcome is over, and not before; all that is told of it stays", async () => {
  const phone = newPhone(gateway);
  const sent = phone.add({ op: "create", recordId: tempId(), data: { note: "her own words" } });
  const wrong = phone.add({ op: "create", recordId: tempId(), entity: "nobody-knows", data: {} });
  const batch = phone.batch();
  const { body } = await phone.api.upload(batch, { wait: 25 });
  expect(linesOf(body.results)).toEqual(["applied", "rejected unknown-entity"]);
  const before = await phone.outcomes();
  await ageBy(gateway.database, 89);
  await rounds.run(afterDays(90));
  expect(await payloads(phone)).toEqual([2]);

  await ageBy(gateway.database, 2);
  expect((await rounds.run(afterDays(90)))["payload"]).toBeGreaterThanOrEqual(1);
  expect(await payloads(phone)).toEqual([]);
  expect(await phone.outcomes()).toEqual(before);
  const again = await phone.api.upload({ ...batch, previousSeq: 0 });
  expect([again.status, again.body.results]).toEqual([200, body.results]);
  const changed = { ...sent, data: { note: "other words" } };
  const { body: reused } = await phone.api.upload({ ...batch, mutations: [changed, wrong] });
  expect(linesOf(reused.results)[0]).toBe("rejected idempotency-key-reused");
  await sendCreates(phone, 1);
  expect(upstream.effects.filter(({ record }) => record?.includes("her own words"))).toHaveLength(1);

  const viewer = gateway.asOps("viewer");
  const fileOf = async (id: string) => (await viewer.get(`/ops/v1/tenants/ours/mutations/${id}`)).body;
  expect(await fileOf(sent.id)).toMatchObject({
    payloadPruned: true,
    status: "applied",
    requestId: expect.any(String),
  });
  const { results } = (await phone.api.get(`/v1/mutations?clientId=${phone.clientId}&afterSeq=2`)).body;
  expect(await fileOf(results[0].id)).toMatchObject({ payloadPruned: false });
});

test("a worker does so by itself", async () => {
  const phone = newPhone(gateway);
  await sendCreates(phone, 1);
  await ageBy(gateway.database, 91);
  await makeDue(gateway.database, "payloads");
  const worker = await gateway.another("worker");
  await expect.poll(() => payloads(phone), { timeout: 20_000 }).toEqual([]);
  await worker.close();
});

test("a batch of which anything is parked or held keeps its payload, and it is applied when it is released", async () => {
  const phone = newPhone(gateway);
  const { marker, parked, held, free } = await withParked(upstream, phone);
  await ageBy(gateway.database, 1_000);
  await rounds.run(atOnce);
  expect(await payloads(phone)).toEqual([held[0]!.seq, free.seq]);
  await newOperator(gateway).command(parked.id, { command: "retry" });
  expect(linesOf(await phone.settled())).toEqual([parked, ...held, free].map(() => "applied"));
  expect(effectsOf(upstream, marker)).toHaveLength(7);
  // Its time begins with the outcome, however long ago it was sent.
  await rounds.run(afterDays(90));
  expect(await payloads(phone)).toEqual([held[0]!.seq, free.seq]);
  await rounds.run(atOnce);
  expect(await payloads(phone)).toEqual([]);
});

test("what was rejected at ingest is kept for as long as its lane has not passed it", async () => {
  const stuck = await startScriptedUpstream();
  const own = await startGateway({ upstreams: crm(stuck.url, { upstream: quiet }) });
  await using here = roundsIn(own.database);
  const phone = newPhone(own);
  for (let n = 0; n < 200; n++) stuck.script({ method: "POST" }, faults.status(503));
  phone.add({ op: "create", recordId: tempId() });
  await phone.send({ wait: 0 });
  phone.add({ op: "create", recordId: tempId(), entity: "nobody-knows" });
  await phone.send({ wait: 0 });
  await ageBy(own.database, 1_000);
  expect(await here.run(atOnce)).toEqual({ payload: 0 });
  expect(await payloadsOf(own.database, phone.clientId)).toEqual([1, 2]);
  await own.close();
  await stuck.stop();
});

test("what has an outcome is kept while anything of it is open in a delivery", async () => {
  const phone = newPhone(gateway);
  await sendCreates(phone, 1);
  await rowsOf(
    gateway.database,
    `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key, possibly_sent, attempts)
     select tenant_id, 'former', mutation_id, client_id, seq, 'parked', '', false, 0 from mutation_key
     where client_id = $1`,
    [phone.clientId],
  );
  await rounds.run(atOnce);
  expect(await payloads(phone)).toEqual([1]);
  await rowsOf(gateway.database, "delete from delivery where client_id = $1", [phone.clientId]);
  await rounds.run(atOnce);
  expect(await payloads(phone)).toEqual([]);
});

test("a shadow that is behind needs no payload of the inbox: it gets all of it from its own log", async () => {
  await using pair = await startPair("postgres", { shadow: { circuit: { failures: 3, cooldownMs: 200 } } });
  await using here = roundsIn(pair.gateway.database);
  await added(pair.gateway);
  await pair.shadow.stop();
  const phone = newPhone(pair.gateway);
  const mentor = tempId();
  phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
  phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { name: "Kari Nordmann" } });
  expect(linesOf(await phone.replay({ wait: 25 }))).toEqual(["applied", "applied"]);
  expect(await here.run(atOnce)).toEqual({ payload: 1 });
  await pair.shadow.start();
  await caughtUp(pair.gateway);
  const held = await bothHold(pair);
  expect(held.shadow).toEqual(held.primary);
  expect(pair.shadow.effects).toHaveLength(2);
}, 120_000);

test("a batch that is gone and still to be replayed stops its lane loudly, and nothing behind it overtakes", async () => {
  const own = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }), role: "api" });
  const phone = newPhone(own);
  const marker = randomUUID();
  for (const n of [1, 2]) {
    phone.add({ op: "create", recordId: tempId(), data: { marker, n } });
    await phone.send({ wait: 0 });
  }
  const [lost] = await rowsOf<{ payload: Buffer }>(
    own.database,
    "select payload from inbox_block where last_seq = 1",
  );
  await rowsOf(own.database, "update inbox_block set payload = null where last_seq = 1");
  const worker = await own.another("worker");
  await expect.poll(() => worker.log.join(""), { timeout: 20_000 }).toContain("is gone, though it is still");
  expect(linesOf(await phone.outcomes())).toEqual(["pending", "pending"]);
  await rowsOf(own.database, "update inbox_block set payload = $1 where last_seq = 1", [lost?.payload]);
  expect(linesOf(await phone.settled(40_000))).toEqual(["applied", "applied"]);
  expect(effectsOf(upstream, marker)).toEqual(["create activities 1", "create activities 2"]);
  await own.close();
}, 60_000);

test("a round goes on where a worker died, undoes what it had half done, and no two have it in hand", async () => {
  const phone = newPhone(gateway);
  await sendCreates(phone, 5);
  await makeDue(gateway.database, "payloads");
  const dying = {
    ...atOnce,
    prune: async (...batch: Parameters<typeof atOnce.prune>) => {
      await atOnce.prune(...batch);
      throw new Error("killed");
    },
  };
  await expect(pruneBatch(rounds.db, "ours", dying)).rejects.toThrow("killed");
  expect(await payloads(phone)).toHaveLength(5);
  let inHand = 0;
  const one = {
    ...atOnce,
    prune: async (...batch: Parameters<typeof atOnce.prune>) => {
      inHand++;
      expect(await pruneBatch(rounds.db, "ours", atOnce)).toBeUndefined();
      return await atOnce.prune(...batch);
    },
  };
  let isMore = true;
  while (isMore) isMore = (await pruneBatch(rounds.db, "ours", one))?.next !== undefined;
  expect(inHand).toBeGreaterThanOrEqual(3);
  expect(await payloads(phone)).toEqual([]);
});

test(
  "whatever is pruned at whatever moment, each mutation is replayed once",
  { timeout: 120_000 },
  async () => {
    const marker = randomUUID();
    const phones = Array.from({ length: 6 }, () => newPhone(gateway));
    const over = new AbortController();
    const pruning = (async () => {
      let gone = 0;
      while (!over.signal.aborted) gone += (await rounds.run(atOnce))["payload"] ?? 0;
      return gone;
    })();
    let n = 0;
    for (let batch = 0; batch < 5; batch++) {
      await Promise.all(
        phones.map(async (phone) => {
          for (let left = Math.ceil(Math.random() * 3); left > 0; left--) {
            const own = ++n;
            const hits = ({ method, body }: { method: string; body: Buffer }) =>
              method === "POST" && body.toString().includes(`"${marker}","n":${own}}`);
            if (Math.random() < 0.3) upstream.script(hits, faults.status(Math.random() < 0.5 ? 418 : 503));
            phone.add({ op: "create", recordId: tempId(), data: { marker, n: own } });
            if (Math.random() < 0.2) phone.add({ op: "create", entity: "nobody-knows", recordId: tempId() });
          }
          await phone.send({ wait: Math.random() < 0.5 ? 0 : 1 });
        }),
      );
    }
    const operator = newOperator(gateway);
    for (const phone of phones) {
      for (const { id, status } of await phone.settled(60_000))
        if (status === "parked") await operator.command(id, { command: "retry" });
    }
    const isParked = async () =>
      (await Promise.all(phones.map((phone) => phone.settled(60_000))))
        .flat()
        .some(({ status }) => status === "parked");
    await expect.poll(isParked, { timeout: 60_000 }).toBe(false);
    over.abort();
    expect(await pruning).toBeGreaterThan(0);
    const all = Array.from({ length: n }, (_, index) => `create activities ${index + 1}`);
    expect(effectsOf(upstream, marker).toSorted()).toEqual(all.toSorted());
    await rounds.run(atOnce);
    for (const phone of phones) expect(await payloads(phone)).toEqual([]);
  },
);
