import type { Kysely } from "kysely";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import { clearForgotten, forgetShadow } from "../../src/replay/shadows/forget.ts";
import { addShadow, type Added } from "../../src/replay/shadows/register.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { holding } from "../replay/locked.ts";
import { rowsOf } from "../replay/rows.ts";
import { leftOf } from "./pruned.ts";

let database: TestDatabase;
let db: Kysely<Database>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 6, onError: () => undefined });
});
afterAll(async () => {
  await db?.destroy();
  await database?.drop();
});
beforeEach(async () => {
  const tables =
    "applied_change shadow shadow_seed shadow_record lane delivery feed_head forgotten_shadow record";
  const names = tables.split(" ").map((table) => `tidegate.${table}`);
  await asSuperuser(database.superuserUrl, (client) => client.query(`truncate ${names.join(", ")}`));
  await rowsOf(database, "insert into feed_head (tenant_id, position) values ('ours', 7)");
});

const id = { tenantId: "ours", upstreamId: "next" };
const hourMs = 3_600_000;
const config = aRestUpstream("http://127.0.0.1:1", {});

/** What a process does whose configuration names the shadow. */
async function add(
  ageMs: number,
  beforeLanes = (): Promise<boolean> => Promise.resolve(true),
): Promise<Added | undefined> {
  return await addShadow(db, id, { shadow: config, primary: config, ageMs: () => ageMs }, beforeLanes);
}

async function forget(upstreamId = "next"): Promise<void> {
  await forgetShadow(db, { ...id, upstreamId }, { by: "siri", givesUp: false });
}

async function clear(): Promise<number> {
  return await inTenant(db, "ours", (trx) => clearForgotten(trx, "ours", 7));
}

async function clearAll(): Promise<void> {
  while ((await clear()) > 0);
}

const isFollowed = "select is_followed from feed_head";

test("who looked before a shadow was added and forgotten does not bring it back", async () => {
  const { holder, queued } = await holding(database, "select 1 from feed_head for update");
  const added = add(hourMs);
  await queued(1);
  await holder.query(
    `insert into forgotten_shadow (tenant_id, upstream_id, forgotten_by, open_changes, cleared_at)
     values ('ours', 'next', 'siri', 0, now())`,
  );
  await holder.query("commit");
  expect(await added).toBeUndefined();
  expect(await leftOf({ database })).toEqual({});
  expect(await rowsOf(database, isFollowed)).toEqual([{ is_followed: false }]);
});

test("who adds a shadow and who forgets it never wait for each other", async () => {
  const { holder, queued } = await holding(database, "select 1 from feed_head for update");
  const added = add(hourMs);
  await queued(1);
  // Another was faster, and an operator as well.
  await rowsOf(
    database,
    "insert into shadow (tenant_id, upstream_id, follows_from) values ('ours', 'next', 7)",
  );
  const forgotten = forget();
  await queued(2);
  await holder.query("commit");
  await forgotten;
  expect(await added).toBeUndefined();
  expect(await leftOf({ database })).toEqual({});
  expect(await rowsOf(database, isFollowed)).toEqual([{ is_followed: false }]);
});

test("who was adding a shadow when it was forgotten leaves it alone when others add it again", async () => {
  await rowsOf(
    database,
    `insert into record (tenant_id, entity, server_id, version, feed_position, scopes, key_id, data)
     values ('ours', 'activity', '1', 1, 1, '{}', 'plain', '{}')`,
  );
  const added = add(hourMs, async () => {
    await forget();
    await clearAll();
    // It asks what its system holds: for as long as that takes, nothing goes there.
    await add(0, () => Promise.resolve(false));
    return true;
  });
  expect(await added).toBeUndefined();
  expect(await leftOf({ database })).toEqual({ shadow: 1, shadow_seed: 1 });
  expect(await add(0)).toBe("now");
  expect(await add(0)).toBe("before");
  expect(await rowsOf(database, "select distinct position from lane")).toEqual([{ position: "-2" }]);
});

test("who waits for another to remove what is left of one shadow goes on with the next", async () => {
  for (const upstreamId of ["next", "third"]) {
    await rowsOf(
      database,
      "insert into shadow (tenant_id, upstream_id, follows_from) values ('ours', $1, 0)",
      [upstreamId],
    );
    await rowsOf(
      database,
      `insert into shadow_record (tenant_id, upstream_id, entity, server_id, own_id, reached)
       values ('ours', $1, 'mentor', '1', '1', 1)`,
      [upstreamId],
    );
    await forget(upstreamId);
  }
  const { holder, queued } = await holding(
    database,
    "select 1 from forgotten_shadow where upstream_id = 'next' for update",
  );
  const cleared = clear();
  await queued(1);
  await holder.query("delete from shadow_record where upstream_id = 'next'");
  await holder.query("update forgotten_shadow set cleared_at = now() where upstream_id = 'next'");
  await holder.query("commit");
  expect(await cleared).toBe(1);
  expect(await clear()).toBe(0);
  expect(await leftOf({ database })).toEqual({});
});
