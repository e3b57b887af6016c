import { randomUUID } from "node:crypto";
import { sql, type Transaction } from "kysely";
import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";

import { putOffLooks, readDueLooks, settleLooks, writeLooks, type Look } from "../../src/inbound/look.ts";
import { readCreatesUnderWay, readOpenCreates, writeAdopted } from "../../src/inbound/creates-under-way.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;
const of = { tenantId: "ours", upstreamId: "crm" };

beforeAll(async () => {
  database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  await owner.query(`
    insert into tidegate.inbound_look (tenant_id, upstream_id, entity, server_id, due_at)
    select 'ours', 'crm', 'activity', n::text, now() - n * interval '1 ms' from generate_series(1, 20000) n;
    insert into tidegate.lane (tenant_id, lane_id, upstream_id, position, tail, due_at, lease_until)
    select 'ours', gen_random_uuid()::text, 'crm', 0, 1, null, case when n < 5 then now() + interval '1 h' end
    from generate_series(1, 5000) n;
    update tidegate.lane set due_at = now() - interval '1 s' where lease_until is not null;
    insert into tidegate.mutation_key (tenant_id, mutation_id, client_id, seq, entity, fingerprint, temp_id)
    select 'ours', gen_random_uuid(), lane_id::uuid, 1, 'activity', '', gen_random_uuid() from tidegate.lane;
    insert into tidegate.inbox_block (tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, key_id, payload, ids)
    select 'ours', client_id, 1, '', '{}', '{}', '', 'plain', '', array[mutation_id] from tidegate.mutation_key;
    analyze tidegate.lane`);
  await owner.end();
  db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});

const some: Look[] = Array.from({ length: 8 }, (_, n) => ({
  entity: "activity",
  serverId: String(2_000 + n),
  asked: 1,
  failures: 0,
  waited: false,
}));
const later = some.map((look) => ({ look, inMs: 1_000 }));

const statements: [string, (trx: Transaction<Database>) => Promise<unknown>][] = [
  ["the looks that are due", async (trx) => await readDueLooks(trx, of, 8)],
  [
    "looks that are asked for again",
    async (trx) =>
      await writeLooks(
        trx,
        of,
        some.map((look) => ({ ...look, inMs: 0 })),
      ),
  ],
  ["looks that are put off", async (trx) => await putOffLooks(trx, of, later)],
  ["looks that are settled", async (trx) => await settleLooks(trx, of, some)],
  ["creates under way", async (trx) => await readCreatesUnderWay(trx, "ours", ["activity"])],
  [
    "open creates by temp ID",
    async (trx) => await readOpenCreates(trx, "ours", [randomUUID(), randomUUID()]),
  ],
  [
    "what was made known, and the creates of it that have ended,",
    async (trx) => await writeAdopted(trx, "ours", [adopted(randomUUID()), adopted(randomUUID())]),
  ],
];

const adopted = (tempId: string) => ({ tempId, entity: "activity", serverId: tempId });

test.each(statements)("%s are found by their keys, however many there are", async (_name, statement) => {
  const fetched = await inTenant(db, "ours", async (trx) => {
    const before = await countRead(trx);
    await statement(trx);
    return (await countRead(trx)) - before;
  });
  expect(fetched).toBeLessThan(100);
});

/** Rows of all tables that this transaction has read, by a scan or by a key. */
async function countRead(trx: Transaction<Database>): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as count from pg_stat_xact_user_tables
    where schemaname = 'tidegate'`.execute(trx);
  return rows[0]?.count ?? 0;
}

test("what was made known under a temp ID is forgotten when its create has ended, however it did, and not before", async () => {
  const known = await inTenant(db, "ours", async (trx) => {
    const { rows } = await sql<{ temp_id: string }>`select temp_id from mutation_key limit 4`.execute(trx);
    const [open, applied, rejected, next] = rows.map((row) => row.temp_id) as [
      string,
      string,
      string,
      string,
    ];
    await writeAdopted(trx, "ours", [open, applied, rejected].map(adopted));
    await sql`update mutation_key set status = 'applied' where temp_id = ${applied}`.execute(trx);
    await sql`update mutation_key set status = 'rejected' where temp_id = ${rejected}`.execute(trx);
    await writeAdopted(trx, "ours", [adopted(next)]);
    const left = await sql<{ temp_id: string }>`select temp_id from inbound_adopted`.execute(trx);
    return { left: left.rows.map((row) => row.temp_id), expected: [open, next] };
  });
  expect(known.left.toSorted()).toEqual(known.expected.toSorted());
});
