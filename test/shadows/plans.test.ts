import { sql, type Kysely, type RawBuilder } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import { hasMoreToFollow } from "../../src/replay/shadows/log.ts";
import { partnersSql } from "../../src/replay/shadows/partners.ts";
import { takenSql } from "../../src/replay/shadows/records.ts";
import { createStrayLook, readBlockers } from "../../src/replay/shadows/strays.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "../replay/rows.ts";

let database: TestDatabase;
let db: Kysely<Database>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});

/** As the service's role has it, which a policy keeps from many an index. */
async function planOf(query: RawBuilder<unknown>, options = ""): Promise<string> {
  return await inTenant(db, "ours", async (trx) => {
    const { rows } = await sql<Record<string, string>>`explain ${sql.raw(options)} ${query}`.execute(trx);
    return rows.map((row) => row["QUERY PLAN"]).join("\n");
  });
}

const seeds = `
  insert into shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id)
  select 'ours', 'next', n % 16, -n, 'activity', n::text from generate_series(1, 5000) n`;

test("whether a lane has more to follow is read from the keys' own indexes, however long the lists are", async () => {
  await rowsOf(database, seeds);
  const plan = await planOf(
    sql`select 1 from lane where tenant_id = 'ours' and ${hasMoreToFollow(sql`lane.position`)}`,
  );
  expect(plan).toContain("shadow_seed_pkey");
  expect(plan).toContain("applied_change_pkey");
  expect(plan).not.toContain("shadow_seed_by_record");
});

const heldBefore = `
  with listing as (
    insert into shadow_listing (tenant_id, upstream_id, entity, pointer, secret_id)
    values ('ours', 'next', 'mentor', '/memberNo', 'secret')
  )
  insert into shadow_listed (tenant_id, upstream_id, entity, own_id, value_hash, seen_in)
  select 'ours', 'next', 'mentor', n::text, decode(md5(n::text), 'hex'), 1 from generate_series(1, 50000) n`;

test("what a record may be paired with is read by its value, whether a shadow held nothing or very much", async () => {
  const hashes = [{ id: "secret", hash: "00ff" }];
  const partners = partnersSql({ tenantId: "ours", upstreamId: "next", entity: "mentor", hashes });
  const taking = takenSql("ours", [{ upstreamId: "next", entity: "mentor", serverId: "1", ownId: "1" }]);
  expect(await planOf(partners)).toContain("shadow_listed_by_value");
  expect(await planOf(taking)).toMatch(/shadow_listed_pkey on .*\n.*Index Cond:.*own_id/);
  for (const next of [heldBefore, "analyze shadow_listed"]) {
    await rowsOf(database, next);
    const plan = await planOf(partners);
    expect(plan).toMatch(
      /Index Scan using shadow_listed_by_value on .*\n.*Index Cond:.*value_hash = .*upstream_id = /,
    );
    expect(plan).not.toContain("Seq Scan");
    expect(await planOf(taking)).toMatch(/shadow_listed_pkey on .*\n.*Index Cond:.*own_id/);
  }
});

const laneId = "00000000-0000-8000-8000-000000000001";
const lane = { upstreamId: "next", laneId };

/** Held ones in a shadow: many behind one, and many behind one each; all of it is parked. */
const held = `
  with blockers as (select n, gen_random_uuid() as id from generate_series(1, 5001) n),
  parked as (
    insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key)
    select 'ours', 'next', id, '${laneId}', n, 'parked', '' from blockers
  )
  insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key, blocked_by)
  select 'ours', 'next', gen_random_uuid(), '${laneId}', 10000 + h, 'held', '', id
  from generate_series(1, 15000) h join blockers on n = greatest(1, h - 9999)`;

test("the look for what is held behind something that has ended costs the same however much is held", async () => {
  await rowsOf(
    database,
    `insert into lane (tenant_id, lane_id, upstream_id, partition) values ('ours', $1, 'next', 0)`,
    [laneId],
  );
  await rowsOf(database, held);
  await rowsOf(database, "analyze delivery");
  const look = { ...lane, after: "00000000-0000-0000-0000-000000000000" };
  const plan = await planOf(readBlockers("ours", [look]), "(analyze, timing off, costs off)");
  expect(plan).toContain("delivery_held");
  expect(plan).toContain("delivery_pkey");
  // One row for each step and for each look at a blocker.
  expect(plan).not.toContain("Seq Scan");
  const rows = [...plan.matchAll(/delivery\w* on delivery \w+ \(actual rows=([\d.]+) loops=(\d+)\)/g)];
  expect(rows.length).toBeGreaterThanOrEqual(3);
  for (const [, each, loops] of rows) expect(Number(each) * Number(loops)).toBeLessThanOrEqual(60);
});

test("one look after the other finds whatever is held behind something that has ended", async () => {
  const lookForStrays = createStrayLook(db);
  for (let n = 0; n < 110; n++) expect(await lookForStrays("ours", [lane])).toEqual([]);
  const ended = `
    with last as (select blocked_by from delivery where state = 'held' order by blocked_by desc limit 1)
    delete from delivery using last where mutation_id = last.blocked_by`;
  await rowsOf(database, ended);
  const found: string[] = [];
  for (let n = 0; n < 101; n++) found.push(...(await lookForStrays("ours", [lane])));
  expect(found).toEqual([laneId]);
});
