import { randomUUID } from "node:crypto";

import { Kysely, sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { migrate } from "../../src/platform/migrate.ts";
import { readMigrations } from "../../src/platform/migration-files.ts";
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

test("blocks from before they named their mutations name them: each client's own, in order", async () => {
  const { "0003_block_ids": nameMutations } = await readMigrations();
  const superuser = openDatabase(database.superuserUrl, { poolMax: 1, onError: () => undefined });
  await sql`set search_path to tidegate`.execute(superuser);
  await sql`alter table inbox_block drop column ids`.execute(superuser);
  await sql`create index mutation_key_by_seq on mutation_key (tenant_id, client_id, seq)`.execute(superuser);
  const [mine, theirs] = [randomUUID(), randomUUID()];
  // A gap in the seqs, and two blocks of one client.
  const ids = await Promise.all(
    (
      [
        [mine, 1],
        [mine, 3],
        [mine, 4],
        [theirs, 2],
      ] as const
    ).map(async ([clientId, seq]) => {
      const id = randomUUID();
      await sql`insert into mutation_key (tenant_id, mutation_id, client_id, seq, entity, fingerprint)
        values ('t', ${id}, ${clientId}, ${seq}, 'a', '')`.execute(superuser);
      return id;
    }),
  );
  for (const [clientId, lastSeq] of [
    [mine, 3],
    [mine, 4],
    [theirs, 2],
  ] as const) {
    await sql`insert into inbox_block (tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, key_id, payload)
      values ('t', ${clientId}, ${lastSeq}, 'u', '{}', '{}', 'r', 'plain', '')`.execute(superuser);
  }
  await owner
    .transaction()
    .execute(async (trx) => await nameMutations!.up(trx as unknown as Kysely<unknown>));
  const { rows } = await sql<{ client_id: string; ids: string[] }>`
    select client_id, ids from inbox_block order by client_id = ${mine} desc, last_seq`.execute(superuser);
  expect(rows).toEqual([
    { client_id: mine, ids: [ids[0], ids[1]] },
    { client_id: mine, ids: [ids[2]] },
    { client_id: theirs, ids: [ids[3]] },
  ]);
  const forced = await sql<{ forced: boolean }>`select bool_and(relforcerowsecurity) as forced from pg_class
    where oid in ('inbox_block'::regclass, 'mutation_key'::regclass)`.execute(superuser);
  expect(forced.rows).toEqual([{ forced: true }]);
  await superuser.destroy();
});

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
