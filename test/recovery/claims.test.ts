import { randomUUID } from "node:crypto";
import type { Kysely } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { recoverDatabase } from "../../src/platform/recovery.ts";
import type { Database } from "../../src/platform/schema.ts";
import type { Claim } from "../../src/replay/claim.ts";
import { createReplayStore, type ReplayStore } from "../../src/replay/store.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "../replay/rows.ts";

const tenantId = "ours";
let database: TestDatabase;
let db: Kysely<Database>;
let store: ReplayStore;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 4, onError: () => undefined });
  store = createReplayStore(db, tenantId, {
    codec: plainCodec,
    owner: "worker",
    leaseMs: 60_000,
    upstream: { id: "crm", role: "primary" },
    announce: () => undefined,
  });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});

async function newLane(): Promise<string> {
  const clientId = randomUUID();
  await rowsOf(
    database,
    "insert into lane (tenant_id, lane_id, upstream_id, client_id, tail, due_at) values ($1, $2::text, 'crm', $2::uuid, 3, now())",
    [tenantId, clientId],
  );
  return clientId;
}

async function claimed(laneId: string): Promise<Claim> {
  const claim = await store.claim(laneId);
  if (!claim || !("epoch" in claim)) throw new Error("the lane could not be claimed");
  return claim;
}

const commitOf = ({ laneId, clientId, epoch }: Claim) => ({
  laneId,
  clientId,
  epoch,
  from: 0,
  position: 1,
  failures: 0,
});

test("on a database that is served as another one nothing is claimed, renewed or committed", async () => {
  const [held, free] = [await newLane(), await newLane()];
  const claim = await claimed(held);
  await rowsOf(database, "update installation set served_as = 'system 1, timeline 1, database 1, table 1'");
  expect(await store.claim(free)).toBeUndefined();
  expect(await store.renew([claim])).toEqual(new Set());
  expect(await store.commit(commitOf(claim))).toEqual({ kind: "stale" });
  expect(await recoverDatabase(database.serviceUrl, { isMeant: false, isSnapshot: false })).toMatchObject({
    kind: "would",
  });
  expect(await store.claim(free)).toBeUndefined();
  await recoverDatabase(database.serviceUrl, { isMeant: true, isSnapshot: false });
  await claimed(free);
});

test("an owner from before a recovery can't be taken for one that came after it", async () => {
  const laneId = await newLane();
  // The database that was lost gave out more epochs than this one knows of.
  const lost = { ...(await claimed(laneId)), epoch: 3 };
  await rowsOf(database, "update lane set epoch = 2, lease_until = null where lane_id = $1", [laneId]);
  await recoverDatabase(database.ownerUrl, { isMeant: true, isSnapshot: true });
  const next = await claimed(laneId);
  expect(next.epoch).toBeGreaterThan(2 ** 50);
  expect(Number.isSafeInteger(next.epoch)).toBe(true);
  expect(next.recoveredAt).toBeInstanceOf(Date);
  expect(await store.renew([lost])).toEqual(new Set());
  expect(await store.commit(commitOf(lost))).toEqual({ kind: "stale" });
  expect(await store.commit(commitOf(next))).toMatchObject({ kind: "done" });
});

test("a recovery is done once, and gives the feed another epoch", async () => {
  await rowsOf(database, "update installation set served_as = 'another'");
  const both = await Promise.all(
    [1, 2].map(async () => await recoverDatabase(database.ownerUrl, { isMeant: true, isSnapshot: false })),
  );
  expect(both.map(({ kind }) => kind).toSorted()).toEqual(["done", "same"]);
  const [done, same] = both.toSorted((a, b) => a.kind.localeCompare(b.kind));
  expect(done?.after.epoch).not.toBe(done?.before.epoch);
  expect(same?.after).toMatchObject({ epoch: done?.after.epoch, servedAs: done?.after.identity });
});

test("what a shadow is seeded with counts as of when the shadow was added, however long after a recovery it is read", async () => {
  const laneId = randomUUID();
  const addedAt = new Date("2026-01-02T03:04:05Z");
  await rowsOf(
    database,
    `with shadow as (insert into shadow (tenant_id, upstream_id, follows_from, created_at) values ('ours', 'next', 0, $2)),
     seed as (insert into shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id)
       values ('ours', 'next', 0, -1, 'activity', '1'))
     insert into lane (tenant_id, lane_id, upstream_id, partition, position) values ('ours', $1, 'next', 0, -2)`,
    [laneId, addedAt],
  );
  const shadows = createReplayStore(db, tenantId, {
    codec: plainCodec,
    owner: "worker",
    leaseMs: 60_000,
    upstream: { id: "next", role: "shadow" },
    announce: () => undefined,
  });
  const claim = await shadows.claim(laneId);
  if (!claim || !("epoch" in claim)) throw new Error("the lane could not be claimed");
  expect(claim.followed.map(({ created_at }) => created_at)).toEqual([addedAt]);
});

test("after a recovery nothing waits for a shadow that was forgotten since then", async () => {
  const laneId = await newLane();
  await recoverDatabase(database.ownerUrl, { isMeant: true, isSnapshot: true });
  const naming = createReplayStore(db, tenantId, {
    codec: plainCodec,
    owner: "worker",
    leaseMs: 60_000,
    upstream: { id: "crm", role: "primary", shadowIds: ["gone"] },
    announce: () => undefined,
  });
  const forget = async (when: string): Promise<void> =>
    void (await rowsOf(
      database,
      `insert into forgotten_shadow (tenant_id, upstream_id, forgotten_at, forgotten_by, open_changes)
       values ('ours', 'gone', ${when}, 'siri', 0)`,
    ));
  expect(await naming.claim(laneId)).toBeUndefined();
  // It may have been added again in the time that the database has forgotten.
  await forget("now() - interval '1 hour'");
  expect(await naming.claim(laneId)).toBeUndefined();
  await forget("now()");
  expect(await naming.claim(laneId)).toMatchObject({ laneId });
});
