import { sql, type Kysely, type RawBuilder } from "kysely";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import { clearForgotten, deletionsOf, forgetShadow, readStanding } from "../../src/replay/shadows/forget.ts";
import { laneIdOf } from "../../src/replay/shadows/log.ts";
import { deletePassed, deleteSeeds } from "../../src/replay/shadows/prune.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { rowsOf } from "../replay/rows.ts";
import { leftOf, pruneShadows } from "./pruned.ts";

let database: TestDatabase;
let db: Kysely<Database>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 2, onError: () => undefined });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});
beforeEach(async () => {
  const tables =
    "applied_change shadow shadow_seed shadow_record lane delivery command feed_head forgotten_shadow";
  const names = tables.split(" ").map((table) => `tidegate.${table}`);
  await asSuperuser(database.superuserUrl, (client) => client.query(`truncate ${names.join(", ")}`));
});

/** The ID of the change at a position. */
const idAt = (position: number): string => `00000000-0000-4000-8000-${String(position).padStart(12, "0")}`;

async function log(positions: number, { tenantId = "ours", partition = 3 } = {}): Promise<void> {
  await rowsOf(
    database,
    `insert into applied_change (tenant_id, partition, position, change_id, entity, server_id, op, is_foreign, key_id)
     select $1, $2, n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'mentor', n::text, 'update', false, 'plain'
     from generate_series(1, $3::int) n`,
    [tenantId, partition, positions],
  );
}

async function follow(upstreamId: string, followsFrom: number, tenantId = "ours"): Promise<void> {
  await rowsOf(
    database,
    `with head as (
       insert into feed_head (tenant_id, position, is_followed) values ($1, 100, true) on conflict do nothing
     )
     insert into shadow (tenant_id, upstream_id, follows_from) values ($1, $2, $3)`,
    [tenantId, upstreamId, followsFrom],
  );
}

/** Gives a shadow a lane for each partition, all at one position. */
async function lanes(upstreamId: string, position: number, tenantId = "ours"): Promise<void> {
  const ids = Array.from({ length: 16 }, (_, partition) => laneIdOf(tenantId, upstreamId, partition));
  await rowsOf(
    database,
    `insert into lane (tenant_id, lane_id, upstream_id, partition, position, follows_from)
     select $1, id, $2, place - 1, $3, (select follows_from from shadow where tenant_id = $1 and upstream_id = $2)
     from unnest($4::text[]) with ordinality as l (id, place)`,
    [tenantId, upstreamId, position, ids],
  );
}

async function open(upstreamId: string, position: number, tenantId = "ours"): Promise<void> {
  await rowsOf(
    database,
    `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key)
     values ($1, $2, $3, $4, $5, 'parked', '')`,
    [tenantId, upstreamId, idAt(position), laneIdOf(tenantId, upstreamId, 3), position],
  );
}

async function logOf(tenantId = "ours"): Promise<number[]> {
  const query = "select position::int from applied_change where tenant_id = $1 order by position";
  return (await rowsOf<{ position: number }>(database, query, [tenantId])).map(({ position }) => position);
}

const upTo = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, n) => from + n);

test("the log goes up to where the last of the tenant's shadows stands, but for what is open in one", async () => {
  await log(20);
  await log(5, { tenantId: "other" });
  await follow("next", 2);
  await lanes("next", 12);
  await open("next", 4);
  await follow("third", 8);
  await pruneShadows({ database });
  // The third has no lanes yet.
  expect(await logOf()).toEqual([4, ...upTo(9, 20)]);
  await lanes("third", -3);
  await pruneShadows({ database });
  expect(await logOf()).toEqual([4, ...upTo(9, 20)]);
  await rowsOf(database, "update lane set position = 15 where upstream_id = 'third' and partition = 3");
  await open("third", 9);
  await pruneShadows({ database }, 1);
  expect(await logOf()).toEqual([4, 9, ...upTo(13, 20)]);
  await rowsOf(database, "delete from delivery");
  await pruneShadows({ database }, 1);
  expect(await logOf()).toEqual(upTo(13, 20));
  expect(await logOf("other")).toHaveLength(5);
});

test("what is open at the primary under the same id keeps nothing", async () => {
  await log(5);
  await follow("next", 0);
  await lanes("next", 5);
  await open("crm", 2);
  expect(await pruneShadows({ database })).toMatchObject({ change: 5 });
});

test("of a tenant without a shadow the whole log goes", async () => {
  await log(20);
  await log(20, { partition: 15 });
  expect(await pruneShadows({ database })).toMatchObject({ change: 40 });
});

const id = { tenantId: "ours", upstreamId: "next" };
const how = { by: "siri", givesUp: false };

async function isFollowed(tenantId = "ours"): Promise<unknown> {
  const rows = await rowsOf<{ is_followed: boolean }>(
    database,
    "select is_followed from feed_head where tenant_id = $1",
    [tenantId],
  );
  return rows[0]?.is_followed;
}

test("a shadow with open changes is not forgotten unless they are given up, and then they are gone", async () => {
  await follow("next", 0);
  await lanes("next", 5);
  await open("next", 2);
  await open("crm", 3);
  await rowsOf(
    database,
    `insert into command (tenant_id, upstream_id, lane_id, mutation_id, command, given_by)
     values ('ours', 'next', $1, $2, 'retry', 'ola')`,
    [laneIdOf("ours", "next", 3), idAt(2)],
  );
  await expect(forgetShadow(db, id, how)).rejects.toMatchObject({ code: "command-refused" });
  expect(await leftOf({ database })).toEqual({ shadow: 1, lane: 16, delivery: 2 });
  expect(await forgetShadow(db, id, { ...how, givesUp: true })).toEqual({ kind: "known", openChanges: 1 });
  await pruneShadows({ database });
  expect(await rowsOf(database, "select upstream_id from delivery")).toEqual([{ upstream_id: "crm" }]);
  const commands = await rowsOf(database, "select result from command where done_at is not null");
  expect(commands).toEqual([{ result: "the shadow was forgotten" }]);
  expect(
    await rowsOf(
      database,
      "select forgotten_by, open_changes from forgotten_shadow where cleared_at is not null",
    ),
  ).toEqual([{ forgotten_by: "siri", open_changes: "1" }]);
});

test("the changes are logged for as long as the tenant has another shadow; another tenant's is untouched", async () => {
  await follow("next", 0);
  await follow("third", 0);
  await follow("next", 0, "other");
  await lanes("next", 5, "other");
  await open("next", 2, "other");
  await forgetShadow(db, id, how);
  expect(await isFollowed()).toBe(true);
  await forgetShadow(db, { ...id, upstreamId: "third" }, how);
  expect(await isFollowed()).toBe(false);
  await pruneShadows({ database });
  expect(await isFollowed("other")).toBe(true);
  expect(await leftOf({ database })).toEqual({ shadow: 1, lane: 16, delivery: 1 });
});

test("forgetting goes on where it was ended, and a repeat changes nothing", async () => {
  await follow("next", 0);
  await lanes("next", 5);
  await rowsOf(
    database,
    `insert into shadow_record (tenant_id, upstream_id, entity, server_id, own_id, reached)
     select 'ours', 'next', 'mentor', n::text, n::text, 1 from generate_series(1, 20) n`,
  );
  expect(await readStanding(db, id)).toEqual({ kind: "known", openChanges: 0 });
  await Promise.all([forgetShadow(db, id, how), forgetShadow(db, id, how)]);
  expect(await readStanding(db, id)).toEqual({ kind: "forgotten", openChanges: 0 });
  const clear = async (): Promise<number> =>
    await inTenant(db, "ours", (trx) => clearForgotten(trx, "ours", 7));
  expect(await clear()).toBe(7);
  expect(await leftOf({ database })).toEqual({ shadow_record: 13 });
  expect(await Promise.all([clear(), clear(), clear()])).toEqual(expect.arrayContaining([7, 6, 0]));
  expect(await forgetShadow(db, id, how)).toEqual({ kind: "forgotten", openChanges: 0 });
  expect(await leftOf({ database })).toEqual({});
  expect(await rowsOf(database, "select 1 from forgotten_shadow")).toHaveLength(1);
  expect(await readStanding(db, { ...id, upstreamId: "nobody" })).toMatchObject({ kind: "unknown" });
});

/** As the service's role has it, which a policy keeps from many an index. */
async function planOf(query: RawBuilder<unknown>): Promise<string> {
  return await inTenant(db, "ours", async (trx) => {
    const { rows } = await sql<Record<string, string>>`explain ${query}`.execute(trx);
    return rows.map((row) => row["QUERY PLAN"]).join("\n");
  });
}

test("what may go is found by keys alone, whatever there is", async () => {
  const passed = deletePassed("ours", { partition: 3, position: 0 }, 500);
  const seeds = deleteSeeds("ours", 500);
  const forgotten = deletionsOf(id, 500);
  for (const isFull of [false, true]) {
    if (isFull) {
      await log(5_000);
      await follow("next", 0);
      await lanes("next", 5_000);
      await rowsOf(
        database,
        `insert into shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id)
         select 'ours', 'next', n % 16, -n, 'mentor', n::text from generate_series(1, 5000) n`,
      );
      await rowsOf(
        database,
        `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key)
         select 'ours', 'crm', gen_random_uuid(), gen_random_uuid(), n, 'parked', '' from generate_series(1, 5000) n`,
      );
      await rowsOf(
        database,
        `insert into lane (tenant_id, lane_id, upstream_id) select 'ours', n::text, 'crm' from generate_series(1, 5000) n`,
      );
      for (const table of ["applied_change", "shadow", "lane", "shadow_seed", "delivery"])
        await rowsOf(database, `analyze ${table}`);
    }
    const [ofLog, ofSeeds] = [await planOf(passed), await planOf(seeds)];
    expect(ofLog).toMatch(/applied_change_pkey on applied_change .*\n.*Index Cond:.*partition = .*> '0'/);
    expect(ofLog).toMatch(/applied_change_pkey on applied_change.*\n.*Index Cond:.*= ANY/);
    expect(ofLog).toMatch(
      /delivery_pkey on delivery .*\n.*Index Cond:.*upstream_id = ANY.*mutation_id = ANY/,
    );
    expect(ofSeeds).toMatch(/shadow_seed_pkey on shadow_seed e.*\n.*Index Cond:.*partition.*> l/);
    expect(ofSeeds).toMatch(/shadow_seed_pkey on shadow_seed.*\n.*Index Cond:.*partition.* = ANY/);
    for (const plan of [ofLog, ofSeeds]) {
      expect(plan).toContain("lane_of_shadow");
      expect(plan).not.toContain("Seq Scan");
    }
    for (const statement of forgotten) {
      const plan = await planOf(statement);
      // Each row that goes, by all of its key; nothing is looked for among others.
      expect(plan).toMatch(/^Delete on (\w+) (?:.*\n)+.*\1_pkey on \1 .*\n.*Index Cond:.*= ANY \(\(InitPlan/);
      expect(plan).not.toMatch(/Seq Scan|^ *Filter: |Nested Loop/m);
    }
  }
});
