import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { openQueueBackend } from "../../src/platform/queues.ts";
import { lanesPerCall } from "../../src/replay/turns.ts";
import { replayQueue } from "../../src/replay/wake.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { deliveriesOf, laneOf, rowsOf } from "./rows.ts";

/** Longer than the longest backoff: a lane that comes back meets the open breaker. */
const circuit = { failures: 4, cooldownMs: 300 };

describe.each(queueBackends())("on %s", (queues) => {
  let upstream: ScriptedUpstream;
  let other: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    const store = { idempotencyHeader: "Idempotency-Key" };
    [upstream, other] = [await startScriptedUpstream(store), await startScriptedUpstream(store)];
    const rest = { upstream: { circuit: { failures: 4, cooldownMs: 100 }, concurrency: 1 } };
    const otherRest = { upstream: { circuit, concurrency: 1 } };
    gateway = await startGateway({
      queues,
      upstreams: crm(upstream.url, rest),
      otherUpstreams: crm(other.url, otherRest),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
    await other?.stop();
  });

  test("what fails for a time is tried until it takes, and what comes behind it waits", async () => {
    const phone = newPhone(gateway);
    const list = [500, 502, 503, 504, 408, 425, 429].map((status) => faults.status(status));
    upstream.script(isOf(phone, 0), ...list, faults.loseReply(), faults.garbage());
    addCreates(phone, 3);
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied", "applied"]);
    const sent = upstream.requests.filter(({ body }) => body.toString().includes(phone.clientId));
    expect(sent.map(numberOf)).toEqual([...Array.from({ length: 10 }, () => 0), 1, 2]);
    expect(effectsOf(upstream, phone)).toEqual([0, 1, 2]);
  });

  test("an upstream that is gone and comes back gets everything, in order", async () => {
    const phones = Array.from({ length: 5 }, () => newPhone(gateway));
    await upstream.stop();
    for (const phone of phones) {
      addCreates(phone, 3);
      await phone.send({ wait: 0 });
    }
    // One by one, as the breaker's probes.
    await vi.waitFor(async () => expect(await retryingOf(gateway)).toBe(phones.length), 20_000);
    // Nobody else has to suffer from it.
    const elsewhere = newPhone(gateway, { iss: "other" });
    addCreates(elsewhere, 3);
    expect(linesOf(await elsewhere.replay())).toEqual(["applied", "applied", "applied"]);
    await upstream.start();
    for (const phone of phones) {
      expect(linesOf(await phone.settled())).toEqual(["applied", "applied", "applied"]);
      expect(effectsOf(upstream, phone)).toEqual([0, 1, 2]);
    }
    expect(await rowsOf(gateway.database, "select 1 from delivery")).toEqual([]);
  });

  test("Retry-After is honoured, stands in the lane, and is visible as a delayed job; other lanes go on", async () => {
    const [phone, free] = [newPhone(gateway), newPhone(gateway)];
    upstream.script(isOf(phone, 0), faults.status(429, { headers: { "retry-after": "60" } }));
    addCreates(phone, 2);
    await phone.send({ wait: 0 });
    await vi.waitFor(
      async () => expect(await laneOf(gateway.database, phone.clientId)).toMatchObject({ failures: 1 }),
      { timeout: 20_000 },
    );
    const lane = await laneOf(gateway.database, phone.clientId);
    expect(lane).toMatchObject({ position: "0", is_leased: false });
    expect(lane.due_in_ms).toBeGreaterThan(50_000);
    expect(await deliveriesOf(gateway.database, phone.clientId)).toMatchObject([
      { state: "retrying", attempts: 1, possibly_sent: false, evidence_status: 429 },
    ]);
    await vi.waitFor(async () => expect(await delayedLanes(gateway)).toEqual([phone.clientId]), {
      timeout: 20_000,
    });
    addCreates(free, 1);
    expect(linesOf(await free.replay())).toEqual(["applied"]);
    // More of the same phone waits with it, and does not ask the upstream.
    addCreates(phone, 1);
    await phone.send({ wait: 0 });
    expect(upstream.requests.filter(({ body }) => body.toString().includes(phone.clientId))).toHaveLength(1);
    expect(await laneOf(gateway.database, phone.clientId)).toMatchObject({ position: "0", tail: "3" });
  });

  test("a dead upstream costs a probe now and then, not a call for each lane; then the oldest go first", async () => {
    const phones = Array.from({ length: 60 }, () => newPhone(gateway, { iss: "other" }));
    const isTheirs = ({ body }: RecordedRequest): boolean =>
      phones.some(({ clientId }) => body.includes(clientId));
    const startedAt = performance.now();
    const recover = other.always(isTheirs, faults.status(503));
    for (const phone of phones) {
      addCreates(phone, 2);
      await phone.send({ wait: 0 });
    }
    await vi.waitFor(async () => expect(await asideOf(gateway, "other")).toBeGreaterThan(20), 10_000);
    await other.received(isTheirs, circuit.failures + 5);
    const probesMax = (performance.now() - startedAt) / circuit.cooldownMs;
    expect(other.requests.filter(isTheirs).length).toBeLessThan(circuit.failures + probesMax + 2);
    // Those that were tried in vain come back when their backoff is over.
    const tried = other.requests.filter(isTheirs).map(({ body }) => body.toString());
    recover();
    for (const phone of phones) expect(linesOf(await phone.settled())).toEqual(["applied", "applied"]);
    for (const phone of phones) expect(effectsOf(other, phone)).toEqual([0, 1]);
    expect(await asideOf(gateway, "other")).toBe(0);
    const first = ({ clientId }: Phone): number =>
      other.effects.findIndex(({ request }) => request.body.includes(clientId));
    const untried = phones
      .filter(({ clientId }) => !tried.some((body) => body.includes(clientId)))
      .map(first);
    expect(untried.length).toBeGreaterThan(5);
    const ranks = untried.map((at) => untried.filter((another) => another < at).length);
    // So many are in hand at the same time, and begin in any order; one may just have been tried.
    const apart = 2 * lanesPerCall + 1;
    for (const [index, rank] of ranks.entries()) expect(Math.abs(rank - index)).toBeLessThanOrEqual(apart);
  });

  test("lanes of an upstream that hangs take no place of another's", async () => {
    const hung = Array.from({ length: 100 }, () => newPhone(gateway, { iss: "other" }));
    const { promise, resolve: answer } = Promise.withResolvers<void>();
    const isTheirs = ({ body }: RecordedRequest): boolean =>
      hung.some(({ clientId }) => body.includes(clientId));
    const heal = other.always(isTheirs, faults.hold(promise));
    for (const phone of hung) {
      addCreates(phone, 1);
      await phone.send({ wait: 0 });
    }
    await other.received(isTheirs);
    const phone = newPhone(gateway);
    addCreates(phone, 10);
    expect(linesOf(await phone.replay())).toEqual(Array.from({ length: 10 }, () => "applied"));
    heal();
    answer();
    for (const one of hung) expect(linesOf(await one.settled())).toEqual(["applied"]);
  });
});

test("calls that wait for their turn for longer than a lease lasts are sent once, by the same owner", async () => {
  await using upstream = await startScriptedUpstream(storeOptions);
  const slow = { timeoutMs: 500, requestsPerSecond: 3 };
  await using gateway = await startGateway({
    queues: "postgres",
    upstreams: capabilities(upstream.url, slow),
  });
  const phones = Array.from({ length: 20 }, () => newPhone(gateway));
  for (const phone of phones) {
    phone.add({ op: "create", entity: "opaque", recordId: tempId(), data: {} });
    await phone.send({ wait: 0 });
  }
  for (const phone of phones) expect(linesOf(await phone.settled())).toEqual(["applied"]);
  expect(upstream.requests).toHaveLength(20);
  expect(await rowsOf(gateway.database, "select distinct epoch from lane")).toEqual([{ epoch: "1" }]);
});

function addCreates(phone: Phone, count: number): void {
  for (let n = 0; n < count; n++)
    phone.add({ op: "create", recordId: tempId(), data: { by: phone.clientId, n } });
}

function isOf({ clientId }: Phone, n: number): (request: RecordedRequest) => boolean {
  return ({ body }) => body.includes(`"by":"${clientId}","n":${n}`);
}

const numberOf = ({ body }: RecordedRequest): number => (JSON.parse(body.toString()) as { n: number }).n;

function effectsOf(upstream: ScriptedUpstream, phone: Phone): number[] {
  return upstream.effects
    .filter(({ request }) => request.body.includes(phone.clientId))
    .map(({ request }) => numberOf(request));
}

async function retryingOf({ database }: TestGateway, tenantId = "ours"): Promise<number> {
  const query = "select 1 from delivery where tenant_id = $1 and state = 'retrying'";
  return (await rowsOf(database, query, [tenantId])).length;
}

async function asideOf({ database }: TestGateway, tenantId: string): Promise<number> {
  return (await rowsOf(database, "select 1 from lane where tenant_id = $1 and aside", [tenantId])).length;
}

/** The lanes whose jobs a queue monitor shows as delayed. */
async function delayedLanes({ environment, database }: TestGateway): Promise<(string | undefined)[]> {
  const { redisUrl } = environment;
  const backend = await openQueueBackend({
    redisUrl,
    databaseUrl: database.serviceUrl,
    onError: () => undefined,
  });
  try {
    return (await backend.queue(replayQueue).getDelayed()).map(({ data }) => data["laneId"]);
  } finally {
    await backend.close();
  }
}
