import { randomUUID } from "node:crypto";
import type { Kysely } from "kysely";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { RecordWrite } from "../../src/change-feed/write.ts";
import { openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import type { Database } from "../../src/platform/schema.ts";
import type { CommitResult, LaneCommit } from "../../src/replay/commit.ts";
import type { Claim } from "../../src/replay/claim.ts";
import { createReplayStore, type ReplayStore } from "../../src/replay/store.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { laneOf, rowsOf } from "./rows.ts";

const tenantId = "ours";
const leaseMs = 60_000;

describe("claims and commits", () => {
  let database: TestDatabase;
  let dbs: [Kysely<Database>, Kysely<Database>];
  let stores: [ReplayStore, ReplayStore];
  beforeAll(async () => {
    database = await createTestDatabase();
    const open = () => openDatabase(database.serviceUrl, { poolMax: 4, onError: () => undefined });
    dbs = [open(), open()];
    const [one, two] = dbs.map((db, n) =>
      createReplayStore(db, tenantId, {
        codec: plainCodec,
        owner: `worker-${n}`,
        leaseMs,
        upstream: { id: "crm", role: "primary" },
        announce: () => undefined,
      }),
    );
    stores = [one!, two!];
  });
  afterAll(async () => {
    await Promise.all((dbs ?? []).map(async (db) => await db.destroy()));
    await database?.drop();
  });

  /** A lane with mutations at 1, 2 and 3, as if they were uploaded. */
  async function newLane() {
    const clientId = randomUUID();
    const mutationIds = [randomUUID(), randomUUID(), randomUUID()];
    await rowsOf(
      database,
      "insert into client (tenant_id, client_id, user_id, last_seq) values ($1, $2, 'kari', 3)",
      [tenantId, clientId],
    );
    await rowsOf(
      database,
      `insert into mutation_key (tenant_id, mutation_id, client_id, seq, entity, fingerprint)
       select $1, id, $2, ordinal, 'activity', '' from unnest($3::uuid[]) with ordinality as m (id, ordinal)`,
      [tenantId, clientId, mutationIds],
    );
    await rowsOf(
      database,
      "insert into lane (tenant_id, lane_id, upstream_id, client_id, tail, due_at) values ($1, $2::text, 'crm', $2::uuid, 3, now())",
      [tenantId, clientId],
    );
    return { clientId, mutationIds };
  }

  const expired = async (laneId: string) =>
    await rowsOf(database, "update lane set lease_until = now() - interval '1 second' where lane_id = $1", [
      laneId,
    ]);

  test("a lane is claimed by one owner, also when it is asked for twice at once", async () => {
    const { clientId } = await newLane();
    const claims = await Promise.all([0, 0, 1, 1].map((n) => stores[n as 0 | 1].claim(clientId)));
    expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
  });

  test("a lane that waits for its time says for how long", async () => {
    const { clientId } = await newLane();
    await rowsOf(database, "update lane set due_at = now() + interval '1 minute' where lane_id = $1", [
      clientId,
    ]);
    const answer = await stores[0].claim(clientId);
    expect(answer).toEqual({ dueInMs: expect.any(Number) });
    expect((answer as { dueInMs: number }).dueInMs).toBeGreaterThan(50_000);
  });

  test("an owner whose lane was taken over writes nothing, and the others of its commit go on", async () => {
    const [lost, kept] = [await newLane(), await newLane()];
    const [stale, good] = [
      await claimedBy(stores[0], lost.clientId),
      await claimedBy(stores[0], kept.clientId),
    ];
    await expired(lost.clientId);
    const next = await claimedBy(stores[1], lost.clientId);
    expect(next.takenOver).toBeDefined();
    const results = await Promise.all([
      stores[0].commit(applied(stale, lost.mutationIds[0])),
      stores[0].commit(applied(good, kept.mutationIds[0])),
    ]);
    expect(results.map(({ kind }) => kind)).toEqual(["stale", "done"]);
    expect(await stores[0].renew([stale, good])).toEqual(new Set([kept.clientId]));
    expect(await statusesOf(lost.clientId)).toEqual([null, null, null]);
    expect(await statusesOf(kept.clientId)).toEqual(["applied", null, null]);
    expect(await laneOf(database, lost.clientId)).toMatchObject({ position: "0", owner: "worker-1" });
  });

  test("a commit that is tried again because its answer was lost is written once", async () => {
    const { clientId, mutationIds } = await newLane();
    const claim = await claimedBy(stores[0], clientId);
    const serverId = randomUUID();
    const commit = applied(claim, mutationIds[0], { record: aRecord(serverId, clientId) });
    expect(await stores[0].commit(commit)).toMatchObject({ kind: "done" });
    expect(await stores[0].commit(commit)).toMatchObject({ kind: "done" });
    const last = applied(claim, mutationIds[1], { from: 1, position: 2, release: "done" });
    expect(await stores[0].commit(last)).toMatchObject({ kind: "done", dueInMs: 0 });
    expect(await stores[0].commit(last)).toMatchObject({ kind: "done", dueInMs: 0 });
    expect(await rowsOf(database, "select version from record where server_id = $1", [serverId])).toEqual([
      { version: "1" },
    ]);
    const outcomes = await rowsOf(database, "select 1 from feed where mutation_id = any($1)", [mutationIds]);
    expect(outcomes).toHaveLength(2);
    expect(await laneOf(database, clientId)).toMatchObject({ position: "2", is_leased: false });
  });

  test("an outcome of what the lane had passed is written once, though the lane does not move with it", async () => {
    const { clientId, mutationIds } = await newLane();
    const claim = await claimedBy(stores[0], clientId);
    expect(await stores[0].commit(applied(claim, mutationIds[0]))).toMatchObject({ kind: "done" });
    const serverId = randomUUID();
    const record = aRecord(serverId, clientId);
    const mapping = {
      tempId: randomUUID(),
      entity: "activity",
      serverId,
      clientId,
      mutationId: mutationIds[1] ?? "",
    };
    const standing = applied(claim, mutationIds[1], { from: 1, position: 1, record, mapping });
    expect(await stores[0].commit(standing)).toMatchObject({ kind: "done" });
    expect(await stores[0].commit(standing)).toMatchObject({ kind: "done" });
    expect(await rowsOf(database, "select version from record where server_id = $1", [serverId])).toEqual([
      { version: "1" },
    ]);
    expect(
      await rowsOf(database, "select 1 from feed where mutation_id = $1", [mutationIds[1]]),
    ).toHaveLength(1);
  });

  test("a lane that is given back says when it is due, and nothing when it waits for a wake", async () => {
    const { clientId, mutationIds } = await newLane();
    const claim = await claimedBy(stores[0], clientId);
    const dueAfter = async (release: LaneCommit["release"], position: number) => {
      const { laneId, epoch } = await claimedBy(stores[0], clientId);
      const at = { laneId, clientId, epoch, from: position, position, failures: 0 };
      const result = await stores[0].commit({ ...at, release });
      await rowsOf(database, "update lane set due_at = now() where lane_id = $1", [clientId]);
      return result.kind === "done" && result.dueInMs;
    };
    const first = await stores[0].commit(applied(claim, mutationIds[0], { release: { dueInMs: 0 } }));
    expect(first).toMatchObject({ kind: "done", dueInMs: 0 });
    expect(await dueAfter("done", 1)).toBe(0);
    expect(await dueAfter({ dueInMs: 60_000 }, 1)).toBeGreaterThan(50_000);
    expect(await dueAfter("stuck", 1)).toBeUndefined();
    expect(await dueAfter("aside", 1)).toBeUndefined();
    await rowsOf(database, "update lane set tail = 1 where lane_id = $1", [clientId]);
    expect(await dueAfter("done", 1)).toBeUndefined();
  });

  test("a lane that its owner gave up is taken over, with the time in which its head may have been sent", async () => {
    const { clientId } = await newLane();
    const claim = await claimedBy(stores[0], clientId);
    await stores[0].abandon(claim, 0);
    const next = await claimedBy(stores[1], clientId);
    const { from, until } = next.takenOver ?? {};
    const now = next.clock.databaseMs;
    expect(until?.getTime()).toBeLessThanOrEqual(now);
    expect(until?.getTime()).toBeGreaterThan(now - 10_000);
    expect(from?.getTime()).toBeLessThan(claim.clock.databaseMs);
    expect(next.failures).toBe(1);
  });

  test("of two who write a record that neither could see, the second is told to read it again", async () => {
    const lanes = [await newLane(), await newLane()];
    const serverId = randomUUID();
    const claims = await Promise.all(lanes.map(({ clientId }, n) => claimedBy(stores[n as 0 | 1], clientId)));
    const results = await whileCounterIsHeld(async () => {
      const commits = claims.map((claim, n) =>
        stores[n as 0 | 1].commit(
          applied(claim, lanes[n]?.mutationIds[0], { record: aRecord(serverId, claim.clientId) }),
        ),
      );
      await expect.poll(async () => await blockedOnLock()).toBe(2);
      return commits;
    });
    expect(results.map(({ kind }) => kind).toSorted((a, b) => a.localeCompare(b))).toEqual(["done", "moved"]);
    expect(await rowsOf(database, "select version from record where server_id = $1", [serverId])).toEqual([
      { version: "1" },
    ]);
  });

  test("locks are taken in one order, whatever the order of the commits", async () => {
    const serverIds = Array.from({ length: 12 }, (_, n) => `${String(n).padStart(2, "0")}-${randomUUID()}`);
    const lanes = await Promise.all(serverIds.map(newLane));
    const claims = await Promise.all(lanes.map(({ clientId }) => claimedBy(stores[0], clientId)));
    await rowsOf(
      database,
      `insert into record (tenant_id, entity, server_id, version, feed_position, scopes, key_id)
       select $1, 'activity', id, 1, 7, '{org}', 'plain' from unnest($2::text[]) as r (id)`,
      [tenantId, serverIds],
    );
    const [last = "", ...others] = serverIds.toReversed();
    const commits = claims
      .map((claim, n) =>
        applied(claim, lanes[n]?.mutationIds[0], {
          record: { ...aRecord(serverIds[n] ?? "", claim.clientId), begunAt: 7 },
        }),
      )
      .toReversed();
    const holder = await connected();
    try {
      await holder.query("begin");
      await holder.query("select from record where server_id = $1 for update", [last]);
      const written = Promise.all(commits.map((commit) => stores[0].commit(commit)));
      await expect.poll(async () => await blockedOnLock()).toBe(1);
      // It waits for the last of them, and has all those before.
      const free = await rowsOf(
        database,
        "select server_id from record where server_id = any($1) for update skip locked",
        [others],
      );
      expect(free).toEqual([]);
      await holder.query("commit");
      expect((await written).map(({ kind }) => kind)).toEqual(commits.map(() => "done"));
    } finally {
      await holder.end();
    }
  });

  test("a record that has appeared since is not waited for by whoever has the feed's counter", async () => {
    const lane = await newLane();
    const claim = await claimedBy(stores[0], lane.clientId);
    const record = aRecord(randomUUID(), claim.clientId);
    const other = await connected();
    try {
      const [written, others] = await whileCounterIsHeld<CommitResult | string>(async () => {
        const commit = stores[0].commit(applied(claim, lane.mutationIds[0], { record }));
        await expect.poll(async () => await blockedOnLock()).toBe(1);
        await rowsOf(
          database,
          `insert into record (tenant_id, entity, server_id, version, feed_position, scopes, key_id)
           values ($1, 'activity', $2, 1, 7, '{org}', 'plain')`,
          [tenantId, record.serverId],
        );
        await other.query("begin");
        await other.query("select from record where server_id = $1 for update", [record.serverId]);
        const waiting = other.query("select from feed_head where tenant_id = $1 for update", [tenantId]);
        await expect.poll(async () => await blockedOnLock()).toBe(2);
        return [commit, waiting.then(async () => (await other.query("commit")).command)];
      });
      expect(written).toEqual({ kind: "moved" });
      expect(others).toBe("COMMIT");
    } finally {
      await other.end();
    }
  });

  test("a lane that begins to wait while what it waits for is being written is due at once", async () => {
    const [maker, waiter] = [await newLane(), await newLane()];
    const [making, waiting] = [
      await claimedBy(stores[0], maker.clientId),
      await claimedBy(stores[1], waiter.clientId),
    ];
    const blocker = maker.mutationIds[0] ?? "";
    const wait: LaneCommit = {
      laneId: waiting.laneId,
      clientId: waiting.clientId,
      epoch: waiting.epoch,
      from: 0,
      position: 0,
      failures: 1,
      release: { dueInMs: 30_000, waitsFor: blocker },
      delivery: {
        upstreamId: "crm",
        clientId: waiting.clientId,
        mutationId: waiter.mutationIds[0] ?? "",
        seq: 1,
        state: "waiting",
        recordKey: "",
        refersTo: [],
        blockedBy: blocker,
        possiblySent: false,
        firstSentAt: null,
        lastSentAt: null,
        attempts: 1,
        problem: null,
        evidence: null,
      },
    };
    const results = await whileCounterIsHeld(async () => {
      const made = stores[0].commit(applied(making, blocker));
      await expect.poll(async () => await blockedOnLock()).toBe(1);
      // The other's outcome is written, and not yet committed.
      expect(await stores[1].commit(wait)).toMatchObject({ kind: "done", dueInMs: 0 });
      return [made];
    });
    // Its look at who waits came too early; so the waiting lane had to see for itself.
    expect(results).toMatchObject([{ kind: "done", unblocked: [] }]);
    const again = await claimedBy(stores[1], waiter.clientId);
    const stillWaiting = { ...wait, epoch: again.epoch };
    expect(await stores[1].commit(stillWaiting)).toMatchObject({ kind: "done", dueInMs: 0 });
  });

  /** Runs `start` while another transaction holds the feed's counter, so that every commit stops at its last statement. */
  async function whileCounterIsHeld<T>(start: () => Promise<Promise<T>[]>): Promise<T[]> {
    await rowsOf(database, "insert into feed_head (tenant_id) values ($1) on conflict do nothing", [
      tenantId,
    ]);
    const holder = await connected();
    await holder.query("begin");
    await holder.query("select 1 from feed_head where tenant_id = $1 for update", [tenantId]);
    try {
      const commits = await start();
      await holder.query("commit");
      return await Promise.all(commits);
    } finally {
      await holder.end();
    }
  }

  async function connected(): Promise<Client> {
    const client = new Client({ connectionString: database.superuserUrl });
    await client.connect();
    await client.query("set search_path to tidegate");
    return client;
  }

  async function blockedOnLock(): Promise<number> {
    const rows = await rowsOf(
      database,
      "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    );
    return rows.length;
  }

  async function statusesOf(clientId: string): Promise<unknown[]> {
    const rows = await rowsOf<{ status: unknown }>(
      database,
      "select status from mutation_key where client_id = $1 order by seq",
      [clientId],
    );
    return rows.map(({ status }) => status);
  }
});

function aRecord(serverId: string, clientId: string): RecordWrite {
  return {
    entity: "activity",
    serverId,
    begunAt: 0,
    data: "{}",
    scopes: ["org"],
    upstreamVersion: null,
    tempId: null,
    createdBy: clientId,
    changedBy: clientId,
    changedBase: 0,
  };
}

async function claimedBy(store: ReplayStore, laneId: string): Promise<Claim> {
  const claim = await store.claim(laneId);
  if (!claim || !("epoch" in claim)) throw new Error("the lane could not be claimed");
  return claim;
}

function applied(claim: Claim, mutationId: string | undefined, rest: Partial<LaneCommit> = {}): LaneCommit {
  return {
    laneId: claim.laneId,
    clientId: claim.clientId,
    epoch: claim.epoch,
    from: 0,
    position: 1,
    failures: 0,
    outcome: { mutationId: mutationId ?? "", status: "applied", isNew: true },
    ...rest,
  };
}
