import { hash } from "node:crypto";

import { Client } from "pg";
import { sql, type RawBuilder, type Transaction } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { deleteRows } from "../../src/change-feed/prune.ts";
import { selectRows } from "../../src/change-feed/read-snapshot.ts";
import { readChangesTogether } from "../../src/change-feed/read-together.ts";
import { inTenantSnapshot, openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import type { Database } from "../../src/platform/schema.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;

const until = 20_000;
/** A tenant of 20,000 records, in one scope of forty each, and every second one has moved on since. */
const history = `
  insert into tidegate.feed (tenant_id, audience, position, kind, entity, record_id)
  select 'ours', 's:group:' || n % 40, n, 'record', 'activity', n::text from generate_series(1, ${until}) n;
  insert into tidegate.record (tenant_id, entity, server_id, version, feed_position, scopes, key_id, data)
  select 'ours', 'activity', n::text, 1, n + n % 2 * ${until}, array['group:' || n % 40], 'plain', '{}'
  from generate_series(1, ${until}) n;
  insert into tidegate.client (tenant_id, client_id, user_id)
  select 'ours', md5(n::text)::uuid, 'user ' || n from generate_series(1, 5000) n`;

beforeAll(async () => {
  database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  await owner.query(history);
  await owner.end();
  db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

interface PlanNode {
  "Node Type": string;
  "Relation Name"?: string;
  "Index Name"?: string;
  "Index Cond"?: string;
  Plans?: PlanNode[];
}

const nodesOf = (plan: PlanNode): PlanNode[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];

const pageOf = (scopes: string[], limit: number) =>
  selectRows({ tenantId: "ours", scopes, clientId: undefined }, { until, scope: 0, after: 10 }, limit);

/** Each place of the plan where a table is read. */
async function scansOf(statement: RawBuilder<unknown>): Promise<PlanNode[]> {
  const plans = await inTenantSnapshot(db, "ours", async (trx) => {
    const { rows } = await sql<{ "QUERY PLAN": { Plan: PlanNode }[] }>`
      explain (format json) ${statement}`.execute(trx);
    return rows.flatMap((row) => row["QUERY PLAN"]);
  });
  return plans
    .flatMap(({ Plan }) => nodesOf(Plan))
    .filter((node) => node["Node Type"].includes("Scan") && node["Relation Name"] !== undefined);
}

/** How many rows of the feed, and records, are fetched for a page by their keys, shown or not. */
async function fetchedFor(scopes: string[], limit: number): Promise<number[]> {
  return await inTenantSnapshot(db, "ours", async (trx) => {
    const before = await countFetched(trx);
    await pageOf(scopes, limit).execute(trx);
    const after = await countFetched(trx);
    return after.map((count, n) => count - before[n]!);
  });
}

/** Of this connection, since its counts were last handed in: that is between transactions. */
async function countFetched(trx: Transaction<Database>): Promise<number[]> {
  const { rows } = await sql<{ feed: number; record: number }>`
    select coalesce(pg_stat_get_xact_tuples_fetched('feed_pkey'::regclass), 0)::integer as feed,
      coalesce(pg_stat_get_xact_tuples_fetched('record_pkey'::regclass), 0)::integer as record`.execute(trx);
  return rows.flatMap(({ feed, record }) => [feed, record]);
}

const [movedOn, current] = ["group:3", "group:4"];

test("a page of a snapshot is read by the primary keys, in each scope from the place to the head", async () => {
  const scans = await scansOf(pageOf([movedOn, "nobody", current], 501));
  expect(scans.map((node) => [node["Relation Name"], node["Node Type"], node["Index Name"]])).toEqual([
    ["feed", "Index Scan", "feed_pkey"],
    ["record", "Index Scan", "record_pkey"],
  ]);
  const [feed, record] = scans.map((node) => node["Index Cond"]);
  for (const part of ["tenant_id = ", "audience = ", '"position" > ', '"position" <= ']) {
    expect(feed).toContain(part);
  }
  for (const part of ["tenant_id = ", "entity = ", "server_id = "]) expect(record).toContain(part);
});

test("a page of a snapshot reads as many rows as it may, whether records still stand there or not, in however many scopes", async () => {
  const all = Array.from({ length: 40 }, (_, n) => `group:${n}`);
  const strange = Array.from({ length: 960 }, (_, n) => `nobody:${n}`);
  for (const scopes of [[movedOn], [current], [movedOn, current], [...strange, ...all], all]) {
    expect([scopes.length, ...(await fetchedFor(scopes, 301))]).toEqual([scopes.length, 301, 301]);
  }
  for (const scopes of [[movedOn, current], [current, ...strange, movedOn], all]) {
    expect([scopes.length, ...(await fetchedFor(scopes, 801))]).toEqual([scopes.length, 801, 801]);
  }
  expect(await fetchedFor(strange, 301)).toEqual([0, 0]);
});

test("a batch of pruning is found, judged and deleted by keys", async () => {
  const scans = await scansOf(deleteRows("ours", { audience: "s:group:3", position: 7 }, 5_000));
  const keys = scans.map(
    (node) => `${node["Relation Name"]} ${node["Index Name"]} ${node["Index Cond"] ?? ""}`,
  );
  expect(keys.toSorted()).toEqual([
    // A position has a row for each scope of one record.
    expect.stringMatching(/^feed (feed_by_position|feed_pkey) .*"position" = judged."position"/),
    expect.stringMatching(/^feed feed_pkey .*ROW\(audience, "position"\) > ROW/),
    expect.stringMatching(/^feed_horizon feed_horizon_pkey .*tenant_id = /),
    expect.stringMatching(/^mutation_key mutation_key_pkey .*mutation_id = /),
    expect.stringMatching(/^record record_pkey .*entity = .*server_id = /),
  ]);
});

test("the pages of many readers cost what they are told, by keys alone, however much there is", async () => {
  // Of each scope the last 20 positions; every second record has moved on since, and is told where it stands.
  const readers = Array.from({ length: 40 }, (_, n) => ({
    tenantId: "ours",
    userId: `user ${n + 1}`,
    clientId: clientIdOf(n + 1),
    scopes: [`group:${n}`, "org"],
    roles: [],
    after: until - 40 * 20,
  }));
  const fetched = await inTenantSnapshot(db, "ours", async (trx) => {
    const before = await countRead(trx);
    const pages = await readChangesTogether(trx, "ours", readers, plainCodec);
    const after = await countRead(trx);
    for (const page of pages) expect(page).toMatchObject({ more: false, changes: { length: 20 } });
    return Object.fromEntries(after.map(({ name, count }, n) => [name, count - before[n]!.count]));
  });
  // The primary key is read; nothing is sorted out afterwards.
  expect(fetched).toEqual({ feed: 800, record: 800, client: 40, "by no index": 0 });
});

function clientIdOf(n: number): string {
  return hash("md5", String(n)).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** How many rows this transaction has fetched of each table by its indexes, and how many it has read otherwise. */
async function countRead(trx: Transaction<Database>): Promise<{ name: string; count: number }[]> {
  const { rows } = await sql<{ name: string; count: number }>`
    select name, coalesce(pg_stat_get_xact_tuples_fetched(name::regclass), 0)::integer + (
      select coalesce(sum(pg_stat_get_xact_tuples_fetched(indexrelid)), 0)::integer from pg_index
      where indrelid = name::regclass
    ) as count
    from (values ('feed'), ('record'), ('client')) t (name)
    union all
    select 'by no index', coalesce(sum(pg_stat_get_xact_tuples_returned(name::regclass)), 0)::integer
    from (values ('feed'), ('record'), ('client'), ('mutation_key')) t (name)`.execute(trx);
  return rows;
}
