import { Client } from "pg";
import { sql } from "kysely";
import { expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { hasMoreToFollow } from "../../src/replay/shadows/log.ts";
import { takenSql } from "../../src/replay/shadows/records.ts";
import { partnersSql } from "../../src/replay/shadows/partners.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";

const seeds = `
  insert into tidegate.shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id)
  select 'ours', 'next', n % 16, -n, 'activity', n::text from generate_series(1, 5000) n`;

const heldBefore = `
  insert into tidegate.shadow_listing (tenant_id, upstream_id, entity, pointer, secret_id)
  values ('ours', 'next', 'mentor', '/memberNo', 'secret');
  insert into tidegate.shadow_listed (tenant_id, upstream_id, entity, own_id, value_hash, seen_in)
  select 'ours', 'next', 'mentor', n::text, decode(md5(n::text), 'hex'), 1 from generate_series(1, 50000) n`;

test("whether a lane has more to follow is read from the keys' own indexes, however long the lists are", async () => {
  const database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  try {
    await owner.query(seeds);
    const plan = await inTenant(db, "ours", async (trx) => {
      const { rows } = await sql<Record<string, string>>`
        explain select 1 from lane where tenant_id = 'ours' and ${hasMoreToFollow(sql`lane.position`)}`.execute(
        trx,
      );
      return rows.map((row) => row["QUERY PLAN"]).join("\n");
    });
    expect(plan).toContain("shadow_seed_pkey");
    expect(plan).toContain("applied_change_pkey");
    expect(plan).not.toContain("shadow_seed_by_record");
  } finally {
    await db.destroy();
    await owner.end();
    await database.drop();
  }
});

test("what a record may be paired with is read by its value, whether a shadow held nothing or very much", async () => {
  const database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  const asked = { tenantId: "ours", upstreamId: "next", entity: "mentor" };
  const hashes = [{ id: "secret", hash: "00ff" }];
  const planOf = async (): Promise<string> =>
    await inTenant(db, "ours", async (trx) => {
      const { rows } = await sql<
        Record<string, string>
      >`explain ${partnersSql({ ...asked, hashes })}`.execute(trx);
      return rows.map((row) => row["QUERY PLAN"]).join("\n");
    });
  const write = { upstreamId: "next", entity: "mentor", serverId: "1", ownId: "1" };
  const planOfTaking = async (): Promise<string> =>
    await inTenant(db, "ours", async (trx) => {
      const { rows } = await sql<Record<string, string>>`explain ${takenSql("ours", [write])}`.execute(trx);
      return rows.map((row) => row["QUERY PLAN"]).join("\n");
    });
  try {
    expect(await planOf()).toContain("shadow_listed_by_value");
    expect(await planOfTaking()).toMatch(/shadow_listed_pkey on .*\n.*Index Cond:.*own_id/);
    await owner.query(heldBefore);
    for (const next of ["select", "analyze tidegate.shadow_listed"]) {
      await owner.query(next);
      const plan = await planOf();
      expect(plan).toMatch(
        /Index Scan using shadow_listed_by_value on .*\n.*Index Cond:.*value_hash = .*upstream_id = /,
      );
      expect(plan).not.toContain("Seq Scan");
      expect(await planOfTaking()).toMatch(/shadow_listed_pkey on .*\n.*Index Cond:.*own_id/);
    }
  } finally {
    await db.destroy();
    await owner.end();
    await database.drop();
  }
});
