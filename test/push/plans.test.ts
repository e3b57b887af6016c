import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { claimPushes, judgeDue } from "../../src/push/claim.ts";
import { lookForNews, markWanted } from "../../src/push/look.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "../replay/rows.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;

const clients = 2_000;
/** A tenant of many clients that have read everything, in a feed of many changes. */
const history = [
  `insert into feed (tenant_id, audience, position, kind, entity, record_id, created_at)
   select 'ours', 's:group:' || n % 40, n, 'record', 'activity', n::text, now() - interval '1 day'
   from generate_series(1, 20000) n`,
  "insert into feed_head (tenant_id, position) values ('ours', 20000)",
  "insert into push_look (tenant_id, position, epoch) select 'ours', 20000, epoch from installation",
  `insert into push_registration (tenant_id, client_id, service, platform, key_id, address, address_hash, scopes, epoch,
     read_position, told_position)
   select 'ours', lpad(n::text, 32, '0')::uuid, 'fcm', 'android', 'plain', 'token', n::text::bytea,
     array['org', 'user:' || n], epoch, 20000, 20000
   from generate_series(1, ${clients}) n, installation`,
  `insert into push_audience select tenant_id, a, client_id from push_registration
   cross join lateral unnest(array['s:' || scopes[1], 's:' || scopes[2], 'c:' || client_id]) a`,
];
/** One change, long enough ago. */
const change = (audience: string, age = "1 minute"): string =>
  `with h as (update feed_head set position = position + 1 where tenant_id = 'ours' returning position)
   insert into feed (tenant_id, audience, position, kind, entity, record_id, created_at)
   select 'ours', '${audience}', position, 'record', 'activity', 'x', now() - interval '${age}' from h`;

beforeAll(async () => {
  database = await createTestDatabase();
  for (const statement of history) await rowsOf(database, statement);
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
  Plans?: PlanNode[];
}

const nodesOf = (plan: PlanNode): PlanNode[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];

/** The indexes by which the service has it planned; and tables, if any are read whole. */
async function indexesOf(statement: ReturnType<typeof sql>): Promise<string[]> {
  const plans = await inTenant(db, "ours", async (trx) => {
    const { rows } = await sql<{
      "QUERY PLAN": { Plan: PlanNode }[];
    }>`explain (format json) ${statement}`.execute(trx);
    return rows.flatMap((row) => row["QUERY PLAN"]);
  });
  const nodes = plans.flatMap(({ Plan }) => nodesOf(Plan));
  const whole = nodes.filter((node) => node["Node Type"] === "Seq Scan");
  const indexes = nodes.flatMap((node) => node["Index Name"] ?? []);
  return [...new Set([...indexes, ...whole.map((node) => node["Relation Name"] ?? "")])].toSorted();
}

const options = {
  service: "fcm" as const,
  limit: 50,
  leaseMs: 30_000,
  codec: plainCodec,
  delayMs: 5_000,
  reminderMs: 60_000,
  budget: { ios: 2, android: 10, other: 10 },
};
const look = async (delayMs = 5_000): Promise<boolean> =>
  await inTenant(db, "ours", (trx) => lookForNews(trx, "ours", { delayMs }));
const wanted = async (): Promise<number> =>
  (await rowsOf(database, "select 1 from push_registration where wanted_position is not null")).length;

test("a look goes by what is new in the feed, and from there by keys", async () => {
  expect(await indexesOf(markWanted("ours", { after: 20_000, until: 20_500, delayMs: 5_000 }))).toEqual([
    "feed_by_position",
    "push_audience_pkey",
    "push_registration_pkey",
  ]);
});

test("what is due is judged by keys", async () => {
  const clientId = "00000000-0000-0000-0000-000000000001";
  expect(await indexesOf(judgeDue("ours", [clientId], options))).toEqual([
    "feed_pkey",
    "push_registration_pkey",
  ]);
});

test("what is younger than the delay is left to a later look, and to a later claim", async () => {
  await rowsOf(database, change("s:user:9", "0"));
  expect(await look(600_000)).toBe(false);
  expect(await wanted()).toBe(0);
  // It is due for another reason.
  const nine = "client_id = lpad('9', 32, '0')::uuid";
  await rowsOf(database, `update push_registration set due_at = now() where ${nine}`);
  const young = { ...options, delayMs: 600_000 };
  const { pushes, looked } = await inTenant(db, "ours", (trx) => claimPushes(trx, "ours", young));
  expect([pushes.length, looked]).toEqual([0, 1]);
  const due = `select 1 from push_registration r join feed f on f.position = r.told_position + 1
    where ${nine} and due_at = f.created_at + interval '10 minutes' and wanted_position is null`;
  expect(await rowsOf(database, due)).toHaveLength(1);
  await rowsOf(
    database,
    "update feed set created_at = now() - interval '11 minutes' where audience = 's:user:9'",
  );
  await look(600_000);
  expect(await wanted()).toBe(1);
  await rowsOf(
    database,
    `update push_registration set told_position = wanted_position, read_position = wanted_position, wanted_position = null,
       due_at = null where ${nine}`,
  );
});

test("a look finds whom a change concerns; what changes after that costs these clients nothing until they read", async () => {
  await rowsOf(database, change("s:user:7"));
  await look();
  expect(await wanted()).toBe(1);
  await rowsOf(database, change("s:org"));
  while (await look());
  expect(await wanted()).toBe(clients);
  const versions = async () =>
    await rowsOf(database, "select xmin::text, wanted_position from push_registration order by client_id");
  const before = await versions();
  for (let n = 0; n < 3; n++) {
    await rowsOf(database, change("s:org"));
    while (await look());
  }
  expect(await versions()).toEqual(before);
});

test("a claim takes no more than it may, those that have been due the longest", async () => {
  await rowsOf(
    database,
    "update push_registration set due_at = now() - (told_position - 19999) * interval '1 s'",
  );
  const { pushes, looked } = await inTenant(db, "ours", (trx) => claimPushes(trx, "ours", options));
  expect([pushes.length, looked]).toEqual([50, 50]);
  const again = await inTenant(db, "ours", (trx) => claimPushes(trx, "ours", options));
  expect(new Set([...pushes, ...again.pushes].map(({ clientId }) => clientId)).size).toBe(100);
});

test("another epoch's positions mean nothing: every client is looked at anew, spread over a minute", async () => {
  await rowsOf(database, "update installation set epoch = gen_random_uuid()");
  expect(await look()).toBe(false);
  const rows = await rowsOf(
    database,
    `select 1 from push_registration where told_position = 0 and read_position = 0 and wanted_position is null
       and claim_id is null and due_at between now() - interval '1 minute' and now() + interval '1 minute'`,
  );
  expect(rows).toHaveLength(clients);
  expect(await look()).toBe(false);
});
