import { randomUUID } from "node:crypto";
import type { Kysely } from "kysely";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import {
  claimRecords,
  releaseRecords,
  renewRecordClaims,
  type RecordClaimAsked,
} from "../../src/replay/record-claim.ts";
import { assertMayStart, type Slice } from "../../src/replay/slice.ts";
import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { storeOptions } from "./capabilities.ts";
import { entityName, policyEntities } from "./policies.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";
import { startWorkerProcess } from "./worker-process.ts";

const entity = entityName("reject", "upsert");
type PolicyConfig = { crm: { entities: Record<string, object> } };
const never = new Promise<void>(() => undefined);

describe("two processes and an upstream without versions", { timeout: 120_000 }, () => {
  test("two that change one record: the second looks only when the first has written, and is told", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using api = await startApi(upstream, { timeoutMs: 20_000 });
    await using first = await startWorkerProcess(api);
    const { recordId, version, path } = await seenRecord(api, upstream);
    const [mine, theirs] = [newPhone(api), newPhone(api)];
    const gate = Promise.withResolvers<void>();
    upstream.script({ method: "PATCH", path }, faults.hold(gate.promise));
    mine.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 50 } });
    await mine.send({ wait: 0 });
    await upstream.received({ method: "PATCH", path }, 2);
    // What the other phone sends meanwhile is the other process's.
    first.signal("SIGSTOP");
    await api.another("worker");
    theirs.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 60 } });
    await theirs.send({ wait: 0 });
    await waitingOrEnded(api, theirs);
    // It is nobody's business who is at work on it.
    expect(await theirs.outcomes()).toMatchObject([{ status: "pending", blockedBy: null }]);
    gate.resolve();
    first.signal("SIGCONT");
    expect(linesOf([...(await mine.settled(40_000)), ...(await theirs.settled(40_000))])).toEqual([
      "applied",
      "conflict upstream-conflict",
    ]);
    expect(held(upstream, recordId)).toMatchObject({ minutes: 50 });
    expect(await rowsOf(api.database, "select 1 from record_claim")).toEqual([]);
  });

  test("the record of a process that was killed is free when its lease is over, and one of two changes is told of the other", async () => {
    await using upstream = await startScriptedUpstream(storeOptions);
    await using api = await startApi(upstream, { timeoutMs: 1_000 });
    await using victim = await startWorkerProcess(api);
    const { recordId, version, path } = await seenRecord(api, upstream);
    const [mine, theirs] = [newPhone(api), newPhone(api)];
    upstream.script({ method: "PATCH", path }, faults.hold(never));
    mine.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 50 } });
    await mine.send({ wait: 0 });
    await upstream.received({ method: "PATCH", path }, 2);
    victim.signal("SIGKILL");
    await victim.exited;
    expect(await rowsOf(api.database, "select 1 from record_claim")).toHaveLength(1);
    await api.another("worker");
    theirs.add({ op: "update", entity, recordId, baseVersion: version, data: { minutes: 60 } });
    await theirs.send({ wait: 0 });
    const [[ours], [others]] = [await mine.settled(60_000), await theirs.settled(60_000)];
    const kept = ours?.status === "applied" ? 50 : 60;
    expect(new Set([ours?.status, others?.status])).toEqual(new Set(["applied", "conflict"]));
    expect(held(upstream, recordId)).toMatchObject({ minutes: kept });
    expect(await rowsOf(api.database, "select 1 from record_claim")).toEqual([]);
  });
});

describe("which changes have a record alone", { timeout: 60_000 }, () => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream(storeOptions);
    const { crm } = policyEntities(upstream.url, { timeoutMs: 20_000 }) as PolicyConfig;
    const bare = crm.entities[entityName("client-wins", "upsert")];
    const whole = { ...bare, path: "/whole", update: { class: "upsert", method: "PUT" } };
    const named = { ...bare, path: "/named", update: { class: "upsert", method: "PATCH", sends: "record" } };
    const entities = { ...crm.entities, whole, named };
    gateway = await startGateway({ queues: "postgres", upstreams: { crm: { ...crm, entities } } });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test.each([
    ["where nothing is compared, as nothing stands against a change", "client-wins-upsert", false],
    ["where the upstream compares", "reject-conditional", false],
    [
      "where others' changes may be compared with it, though its own author names no version",
      "reject-upsert",
      true,
    ],
    ["where it is sent as a whole, made of what was read", "whole", true],
    ["where it is sent as a whole by another method", "named", true],
  ])("%s: %s", async (_what, name, isAlone) => {
    const { recordId, path } = await seenRecord(gateway, upstream, name);
    const [mine, theirs] = [newPhone(gateway), newPhone(gateway)];
    const gate = Promise.withResolvers<void>();
    const isChange = ({ method, path: asked }: { method: string; path: string }) =>
      method !== "GET" && asked === path;
    upstream.script(isChange, faults.hold(gate.promise));
    mine.add({ op: "update", entity: name, recordId, data: { mine: 1 } });
    await mine.send({ wait: 0 });
    await upstream.received(isChange, 2);
    expect(await rowsOf(gateway.database, "select 1 from record_claim")).toHaveLength(isAlone ? 1 : 0);
    theirs.add({ op: "update", entity: name, recordId, data: { theirs: 1 } });
    await theirs.send({ wait: 0 });
    await waitingOrEnded(gateway, theirs);
    expect((await theirs.outcomes())[0]?.status).toBe(isAlone ? "pending" : "applied");
    gate.resolve();
    expect(linesOf([...(await mine.settled()), ...(await theirs.settled())])).toEqual(["applied", "applied"]);
    expect(held(upstream, recordId, name)).toMatchObject({ mine: 1, theirs: 1 });
  });

  test.each(["whole", "named"])(
    "%s: an update that is sent as a whole keeps what others have changed",
    async (name) => {
      const { recordId } = await seenRecord(gateway, upstream, name);
      upstream.change(name, recordId, '{"theirs":1}');
      const mine = newPhone(gateway);
      mine.add({ op: "update", entity: name, recordId, data: { mine: 1 } });
      expect(linesOf(await mine.replay())).toEqual(["applied"]);
      upstream.change(name, recordId, '{"theirs":2}');
      mine.add({ op: "update", entity: name, recordId, data: { mine: 2 } });
      expect(linesOf(await mine.replay())).toEqual(["applied"]);
      expect(held(upstream, recordId, name)).toMatchObject({ mine: 2, theirs: 2 });
    },
  );

  test("a claim that was left behind by an owner whose lane has another one holds nobody up, whatever its lease says", async () => {
    const { recordId } = await seenRecord(gateway, upstream, entity);
    const [mine, theirs] = [newPhone(gateway), newPhone(gateway)];
    mine.add({ op: "update", entity, recordId, data: { mine: 1 } });
    await mine.send();
    const [{ id } = { id: "" }] = await mine.settled();
    await rowsOf(
      gateway.database,
      `insert into record_claim (tenant_id, entity, server_id, lane_id, epoch, mutation_id, lease_until)
       select tenant_id, $1, $2, lane_id, epoch - 1, $3, now() + interval '1 hour' from lane where client_id = $4`,
      [entity, recordId, id, mine.clientId],
    );
    theirs.add({ op: "update", entity, recordId, data: { theirs: 1 } });
    expect(linesOf(await theirs.replay())).toEqual(["applied"]);
    expect(await rowsOf(gateway.database, "select 1 from record_claim")).toEqual([]);
  });
});

describe("claims of records", () => {
  const leaseMs = 60_000;
  let database: TestDatabase;
  let db: Kysely<Database>;
  beforeAll(async () => {
    database = await createTestDatabase();
    db = openDatabase(database.serviceUrl, { poolMax: 8, onError: () => undefined });
  });
  afterAll(async () => {
    await db?.destroy();
    await database?.drop();
  });

  const claim = async (...asked: RecordClaimAsked[]) => await claimRecords(db, "ours", asked, leaseMs);
  const expire = async () => await rowsOf(database, "update record_claim set lease_until = now()");
  const release = async (asked: RecordClaimAsked) =>
    await inTenant(db, "ours", async (trx) => await releaseRecords(trx, "ours", [asked]));

  test("of many lanes that ask at once, also in one call, one has the record, and the others are told for what", async () => {
    const id = randomUUID();
    const asked = Array.from({ length: 12 }, () => asking(id));
    const calls = [asked.slice(0, 4), asked.slice(4, 8), asked.slice(8)];
    const claimed = (await Promise.all(calls.map(async (call) => await claim(...call)))).flat();
    const owner = asked[claimed.findIndex(({ kind }) => kind === "ours")];
    expect(claimed.filter(({ kind }) => kind === "ours")).toEqual([{ kind: "ours", feedPosition: 0 }]);
    const busy = { kind: "busy", mutationId: owner?.mutationId };
    expect(claimed.filter(({ kind }) => kind === "busy")).toEqual(Array.from({ length: 11 }, () => busy));
  });

  test("a claim whose lease is over is another lane's; its owner can neither prolong nor give it back", async () => {
    const [mine, theirs] = [asking("expired"), asking("expired")];
    await claim(mine);
    expect(await claim(theirs)).toMatchObject([{ kind: "busy" }]);
    await expire();
    // Nobody has taken it yet.
    expect(await renewRecordClaims(db, "ours", [mine], leaseMs)).toEqual(new Set([mine.laneId]));
    expect(await claim(theirs)).toMatchObject([{ kind: "busy" }]);
    await expire();
    expect(await claim(theirs)).toMatchObject([{ kind: "ours" }]);
    expect(await renewRecordClaims(db, "ours", [mine], leaseMs)).toEqual(new Set());
    await release(mine);
    expect(await claim(mine)).toEqual([{ kind: "busy", mutationId: theirs.mutationId }]);
    await release(theirs);
    expect(await claim(mine)).toMatchObject([{ kind: "ours" }]);
  });

  test("the lane's next owner has the record at once, and the one before it does not get it back", async () => {
    const before = asking("taken over");
    const after = { ...before, epoch: 2 };
    await claim(before);
    expect(await claim(after)).toMatchObject([{ kind: "ours" }]);
    expect(await claim(before)).toMatchObject([{ kind: "busy" }]);
    await release(before);
    expect(await claim(asking("taken over"))).toMatchObject([{ kind: "busy" }]);
  });

  test("no call starts that the claim would not outlive, however long the lane's lease is", () => {
    expect(() => assertMayStart(sliceHolding(performance.now() + 60_000))).not.toThrow();
    expect(() => assertMayStart(sliceHolding(performance.now() + 9_000))).toThrow(
      "would not outlive the call",
    );
  });
});

async function startApi({ url }: ScriptedUpstream, rest: object): Promise<TestGateway> {
  return await startGateway({ queues: "postgres", role: "api", upstreams: policyEntities(url, rest) });
}

/** A record that both phones have seen. */
async function seenRecord(api: TestGateway, upstream: ScriptedUpstream, name = entity) {
  const recordId = randomUUID();
  upstream.seed(name, [JSON.stringify({ id: recordId, minutes: 45 })]);
  const phone = newPhone(api);
  phone.add({ op: "update", entity: name, recordId, data: { seen: true } });
  await phone.send({ wait: 0 });
  const [result] = await phone.settled();
  return { recordId, version: result?.version, path: `/${name}/${recordId}` };
}

async function waitingOrEnded({ database }: TestGateway, { clientId }: Phone): Promise<void> {
  const query = `select 1 from delivery where client_id = $1 and state = 'waiting'
    union all select 1 from mutation_key where client_id = $1 and status is not null`;
  const isOne = async () => expect(await rowsOf(database, query, [clientId])).toHaveLength(1);
  await vi.waitFor(isOne, { timeout: 40_000, interval: 50 });
}

function held(upstream: ScriptedUpstream, id: string, name = entity): unknown {
  const request = { method: "GET", path: `/${name}/${id}`, headers: {}, body: Buffer.alloc(0) };
  return JSON.parse(upstream.apply(request).body ?? "null");
}

const asking = (serverId: string, more: Partial<RecordClaimAsked> = {}): RecordClaimAsked => ({
  entity,
  serverId,
  laneId: randomUUID(),
  epoch: 1,
  mutationId: randomUUID(),
  ...more,
});

const sliceHolding = (leaseUntil: number) =>
  ({
    isLost: false,
    leaseUntil: Infinity,
    recordClaim: { leaseUntil },
    upstream: { config: { timeoutMs: 10_000 } },
  }) as Slice;
