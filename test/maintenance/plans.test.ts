import { sql, type RawBuilder, type Transaction } from "kysely";
import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";

import { emptyBlocks } from "../../src/inbox/prune.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import { deleteAttempts } from "../../src/replay/prune-attempts.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;

/** A tenant whose 20,000 clients have each sent one mutation, a day apart by the hundred; the older half was emptied before. */
const history = `
  insert into tidegate.inbox_block (tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, received_at, key_id, payload, ids)
  select 'ours', md5('c' || n)::uuid, 1, 'kari', '{}', '{}', '', now() - n / 100 * interval '1 day', 'plain',
    case when n <= 10000 then '[]'::bytea end, array[md5('m' || n)::uuid] from generate_series(1, 20000) n;
  insert into tidegate.lane (tenant_id, lane_id, upstream_id, client_id, position, tail)
  select 'ours', md5('c' || n)::uuid, 'crm', md5('c' || n)::uuid, 1, 1 from generate_series(1, 20000) n;
  insert into tidegate.mutation_key (tenant_id, mutation_id, client_id, seq, entity, fingerprint, status, settled_at)
  select 'ours', md5('m' || n)::uuid, md5('c' || n)::uuid, 1, 'activity', '', 'applied', now() - n / 100 * interval '1 day'
  from generate_series(1, 20000) n;
  insert into tidegate.attempt (tenant_id, mutation_id, upstream_id, begun_at, epoch, duration_ms, disposition, sent, worker, request_id)
  select 'ours', md5('m' || n)::uuid, 'crm', now() - n / 100 * interval '1 day', 1, 0, 'applied', true, '', ''
  from generate_series(1, 20000) n;
  insert into tidegate.pruning (tenant_id, kind, gone_until)
  values ('ours', 'payloads', now()), ('ours', 'attempts', now());`;

beforeAll(async () => {
  database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  await owner.query(history);
  await owner.end();
  db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});

const keepMs = 90 * 86_400_000;

/** How many rows of each table a statement reads, by whatever way; what it does is undone. */
async function readBy<Row>(statement: RawBuilder<Row>): Promise<{ row: Row; read: Record<string, number> }> {
  const undone = new Error("undone");
  let told: { row: Row; read: Record<string, number> } | undefined;
  await inTenant(db, "ours", async (trx) => {
    const before = await countRead(trx);
    const { rows } = await statement.execute(trx);
    const after = await countRead(trx);
    const read = Object.fromEntries([...after].map(([name, count]) => [name, count - before.get(name)!]));
    told = { row: rows[0]!, read };
    throw undone;
  }).catch((error: unknown) => {
    if (error !== undone) throw error;
  });
  return told!;
}

/** Of this connection, since its counts were last handed in: that is between transactions. */
async function countRead(trx: Transaction<Database>): Promise<Map<string, number>> {
  const { rows } = await sql<{ name: string; count: number }>`
    select relname as name, (pg_stat_get_xact_tuples_fetched(oid) + pg_stat_get_xact_tuples_returned(oid)
      + (select coalesce(sum(pg_stat_get_xact_tuples_fetched(indexrelid)
          + pg_stat_get_xact_tuples_returned(indexrelid)), 0) from pg_index where indrelid = c.oid))::integer as count
    from pg_class c where relname in ('inbox_block', 'lane', 'mutation_key', 'delivery', 'attempt')`.execute(
    trx,
  );
  return new Map(rows.map(({ name, count }) => [name, count]));
}

test("a batch of blocks costs what it looks at: none that was emptied before, none that is younger, all by keys", async () => {
  const { row, read } = await readBy(emptyBlocks("ours", { keepMs, after: undefined, limit: 100 }));
  expect(row).toMatchObject({ looked_at: 100, emptied: 100 });
  expect(read["mutation_key"]).toBeGreaterThanOrEqual(100);
  for (const count of Object.values(read)) expect(count).toBeLessThan(1_000);
  const { received_at: receivedAt, client_id: clientId } = row;
  const after = { receivedAt: receivedAt!, clientId: clientId!, lastSeq: 1 };
  const second = await readBy(emptyBlocks("ours", { keepMs, after, limit: 100 }));
  expect(second.row).toMatchObject({ looked_at: 100, emptied: 100 });
  for (const count of Object.values(second.read)) expect(count).toBeLessThan(1_000);
  const all = await readBy(emptyBlocks("ours", { keepMs, after: undefined, limit: 20_000 }));
  expect(all.row.looked_at).toBeLessThan(1_100);
  const none = await readBy(emptyBlocks("ours", { keepMs: 1_000 * keepMs, after: undefined, limit: 100 }));
  expect(none.row).toMatchObject({ looked_at: 0, emptied: 0, client_id: null });
  for (const count of Object.values(none.read)) expect(count).toBeLessThan(10);
});

test("a batch of attempts costs what it looks at, by keys, at the beginning of a round and later", async () => {
  const first = await readBy(deleteAttempts("ours", { keepMs, after: undefined, limit: 100 }));
  const { mutation_id: mutationId, upstream_id: upstreamId, begun_at: begunAt, epoch } = first.row;
  const after = {
    mutationId: mutationId!,
    upstreamId: upstreamId!,
    begunAt: begunAt!,
    epoch: Number(epoch),
  };
  const second = await readBy(deleteAttempts("ours", { keepMs, after, limit: 100 }));
  for (const { row, read } of [first, second]) {
    expect(row.looked_at).toBe(100);
    expect(row.deleted).toBeGreaterThan(0);
    for (const count of Object.values(read)) expect(count).toBeLessThan(1_500);
  }
});

test("of another tenant nothing is looked at", async () => {
  const { row } = await readBy(emptyBlocks("theirs", { keepMs, after: undefined, limit: 100 }));
  expect(row).toMatchObject({ looked_at: 0, emptied: 0 });
});
