import { Kysely, sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { migrate } from "../../src/platform/migrate.ts";
import { assertSchemaIsCurrent } from "../../src/platform/schema-version.ts";
import type { Database } from "../../src/platform/schema.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let owner: Kysely<Database>;
let service: Kysely<Database>;

beforeEach(async () => {
  database = await createTestDatabase();
  owner = openDatabase(database.ownerUrl, { poolMax: 1, onError: () => undefined });
  service = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});

afterEach(async () => {
  await owner.destroy();
  await service.destroy();
  await database.drop();
});

test("an empty database becomes current, also when two migrate it at once", async () => {
  await sql`drop schema tidegate cascade`.execute(owner);
  await sql`drop schema bullmq cascade`.execute(owner);
  await expect(check()).rejects.toMatchObject({ code: "database-version" });
  const runs = await Promise.all([migrateAgain(), migrateAgain()]);
  expect(runs.flatMap(({ applied }) => applied)).toContainEqual(expect.stringMatching(/^0001_/));
  await check();
  expect(await migrateAgain()).toEqual({ applied: [] });
});

test("a database that lacks a migration is refused, and the message says what to run", async () => {
  await sql`delete from migration`.execute(owner);
  await expect(check()).rejects.toMatchObject({
    code: "database-version",
    message: expect.stringContaining("npm run migrate"),
  });
});

test("a database newer than the code is neither served nor migrated", async () => {
  await sql`insert into migration (name, timestamp) values ('9999_later', '')`.execute(owner);
  const newer = { code: "database-version", message: expect.stringContaining("9999_later") };
  await expect(check()).rejects.toMatchObject(newer);
  await expect(migrateAgain()).rejects.toMatchObject(newer);
});

test.for([
  ["older", sql`delete from bullmq.migration where version > 1`],
  ["newer", sql`insert into bullmq.migration (version, name, min_client_version) values (999, 'later', 1)`],
] as const)(
  "queue tables that are %s than the code are refused when queues are on Postgres",
  async ([, change]) => {
    await change.execute(owner);
    await expect(check()).rejects.toMatchObject({ code: "database-version" });
    await assertSchemaIsCurrent(service, { queuesOnPostgres: false });
  },
);

test("the service can change rows, and neither tables nor the ledger", async () => {
  await sql`select count(*) from client`.execute(service);
  for (const statement of [
    "create table mine ()",
    "drop table client",
    "truncate client",
    "alter table client disable row level security",
    "delete from migration",
    "set role tidegate_owner",
  ]) {
    await expect(sql.raw(statement).execute(service), statement).rejects.toThrow(
      /permission denied|must be owner/,
    );
  }
});

test("an absent database is named within seconds, without its password", async () => {
  const url = "postgres://tidegate:hush@127.0.0.1:1/tidegate";
  const error: unknown = await migrate(url, { serviceRole: "tidegate" }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({
    code: "database-unreachable",
    message: expect.stringContaining("127.0.0.1:1"),
  });
  expect(JSON.stringify([error, String(error)])).not.toContain("hush");
});

async function check(): Promise<void> {
  await assertSchemaIsCurrent(service, { queuesOnPostgres: true });
}

async function migrateAgain() {
  return await migrate(database.ownerUrl, { serviceRole: "tidegate" });
}
