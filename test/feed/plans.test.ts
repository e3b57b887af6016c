import { Client } from "pg";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { selectRows } from "../../src/change-feed/read-snapshot.ts";
import { inTenantSnapshot, openDatabase } from "../../src/platform/db.ts";
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
  from generate_series(1, ${until}) n`;

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
  "Actual Rows": number;
  "Actual Loops": number;
  "Rows Removed by Filter"?: number;
  Plans?: PlanNode[];
}

const nodesOf = (plan: PlanNode): PlanNode[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];

/** How a page of a snapshot is read in truth: each place where a table is read. */
async function scansOf({ scopes, limit = 501 }: { scopes: string[]; limit?: number }): Promise<PlanNode[]> {
  const reader = { tenantId: "ours", scopes, clientId: undefined };
  const [plan] = await inTenantSnapshot(db, "ours", async (trx) => {
    const { rows } = await sql<{ "QUERY PLAN": { Plan: PlanNode }[] }>`
      explain (analyze, format json) ${selectRows(reader, { until, scope: 0, after: 10 }, limit)}`.execute(
      trx,
    );
    return rows.flatMap((row) => row["QUERY PLAN"]);
  });
  return nodesOf(plan!.Plan).filter((node) => node["Relation Name"] !== undefined);
}

/** Of one table: rows touched, whether they were shown or not. */
function touched(scans: PlanNode[], relation: string): number {
  return scans
    .filter((node) => node["Relation Name"] === relation)
    .map((node) => (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"])
    .reduce((sum, rows) => sum + Math.round(rows), 0);
}

const [movedOn, current] = ["group:3", "group:4"];

test("a page of a snapshot is read by the primary keys, in each scope from the place to the head", async () => {
  const scans = await scansOf({ scopes: [movedOn, "nobody", current] });
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

test("a page of a snapshot reads as many rows as it may, whether they still stand or not, in however many scopes", async () => {
  const all = Array.from({ length: 40 }, (_, n) => `group:${n}`);
  const strange = Array.from({ length: 60 }, (_, n) => `nobody:${n}`);
  for (const scopes of [[movedOn], [current], [movedOn, current], [...strange, ...all], all]) {
    const scans = await scansOf({ scopes, limit: 301 });
    expect([scopes.length, touched(scans, "feed"), touched(scans, "record")]).toEqual([
      scopes.length,
      301,
      301,
    ]);
  }
  expect(touched(await scansOf({ scopes: strange }), "feed")).toBe(0);
});
