import { randomUUID } from "node:crypto";

import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";

import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let owner: Client;
let service: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = new Client({ connectionString: database.superuserUrl });
  service = new Client({ connectionString: database.serviceUrl });
  await Promise.all([owner.connect(), service.connect()]);
});
afterAll(async () => {
  await Promise.all([owner.end(), service.end()]);
  await database.drop();
});
beforeEach(async () => {
  await owner.query("delete from tidegate.client");
});

/** Runs statements as the service would, in one transaction with this tenant; undefined sets none. */
async function asTenant<T>(tenant: string | undefined, work: () => Promise<T>): Promise<T> {
  await service.query("begin");
  try {
    if (tenant !== undefined)
      await service.query("select set_config('tidegate.tenant_id', $1, true)", [tenant]);
    return await work();
  } finally {
    await service.query("rollback");
  }
}

const addClient = async (connection: Client, tenant: string): Promise<void> =>
  void (await connection.query(
    "insert into tidegate.client (tenant_id, client_id, user_id) values ($1, $2, 'kari')",
    [tenant, randomUUID()],
  ));
const clients = async (): Promise<string[]> =>
  (await service.query<{ tenant_id: string }>("select tenant_id from client")).rows.map(
    (row) => row.tenant_id,
  );

test("every table with a tenant has forced row-level security and one policy, by that tenant", async () => {
  const { rows } = await owner.query(`
    select c.oid::regclass::text as name, c.relrowsecurity and c.relforcerowsecurity as forced,
      (select array_agg(concat_ws(' ', p.polpermissive, p.polcmd, pg_get_expr(p.polqual, p.polrelid),
        pg_get_expr(p.polwithcheck, p.polrelid))) from pg_policy p where p.polrelid = c.oid) as policies
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    where c.relkind in ('r', 'p') order by 1`);
  expect(rows.map(({ name }: { name: string }) => name)).toContain("tidegate.mutation_key");
  expect(rows).toEqual(
    rows.map(({ name }: { name: string }) => ({
      name,
      forced: true,
      policies: [
        "t * (tenant_id = ( SELECT current_setting('tidegate.tenant_id'::text, true) AS current_setting))",
      ],
    })),
  );
});

test("every table of the service has a tenant, but for the few that hold nobody's data", async () => {
  const { rows } = await owner.query(`
    select c.relname as name from pg_class c
    where c.relnamespace = 'tidegate'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id') order by 1`);
  expect(rows.map(({ name }: { name: string }) => name)).toEqual([
    "installation",
    "migration",
    "migration_lock",
  ]);
});

test("every primary key and every index of such a table begins with the tenant", async () => {
  const { rows } = await owner.query(`
    select i.indexrelid::regclass::text as name from pg_index i
    join pg_attribute t on t.attrelid = i.indrelid and t.attname = 'tenant_id'
    where i.indkey[0] <> t.attnum`);
  expect(rows).toEqual([]);
});

test("without a tenant no row is visible, and none can be written", async () => {
  await addClient(owner, "ours");
  expect(await asTenant(undefined, clients)).toEqual([]);
  expect(await asTenant("", clients)).toEqual([]);
  for (const tenant of [undefined, ""]) {
    await expect(asTenant(tenant, () => addClient(service, "ours"))).rejects.toThrow(/row-level security/);
  }
});

test("with a tenant only its rows can be read, changed, deleted and added", async () => {
  await Promise.all([addClient(owner, "ours"), addClient(owner, "theirs")]);
  expect(await asTenant("ours", clients)).toEqual(["ours"]);
  const changed = await asTenant("ours", () => service.query("update client set user_id = 'mallory'"));
  const deleted = await asTenant("ours", () => service.query("delete from client"));
  expect([changed.rowCount, deleted.rowCount]).toEqual([1, 1]);
  await asTenant("ours", () => addClient(service, "ours"));
  await expect(asTenant("ours", () => addClient(service, "theirs"))).rejects.toThrow(/row-level security/);
  const moving = asTenant("ours", () => service.query("update client set tenant_id = 'theirs'"));
  await expect(moving).rejects.toThrow(/row-level security/);
});

test("the tenant of one transaction is gone in the next on the same connection", async () => {
  await addClient(owner, "ours");
  expect(await asTenant("ours", clients)).toEqual(["ours"]);
  expect(await asTenant(undefined, clients)).toEqual([]);
});

test("the service's role owns nothing, bypasses nothing and can't become another", async () => {
  const { rows: roles } = await service.query(`
    select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
      (select count(*)::integer from pg_auth_members m where m.member = r.oid) as memberships,
      (select count(*)::integer from pg_class c where c.relowner = r.oid) as relations,
      (select count(*)::integer from pg_proc p where p.proowner = r.oid) as functions,
      (select count(*)::integer from pg_namespace n where n.nspowner = r.oid) as schemas,
      has_schema_privilege('tidegate', 'create') as creates
    from pg_roles r where rolname = current_user`);
  expect(roles).toEqual([
    {
      rolsuper: false,
      rolbypassrls: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      memberships: 0,
      relations: 0,
      functions: 0,
      schemas: 0,
      creates: false,
    },
  ]);
  for (const statement of [
    "alter table tidegate.client disable row level security",
    "alter table tidegate.client no force row level security",
    "drop policy tenant on tidegate.client",
    "create policy all_of_it on tidegate.client using (true)",
    "truncate tidegate.client",
    "set row_security = off; select * from tidegate.client",
    "set role tidegate_owner",
  ]) {
    await expect(service.query(statement), statement).rejects.toThrow(
      /must be owner|permission denied|row-level security/,
    );
    await service.query("reset row_security");
  }
});
