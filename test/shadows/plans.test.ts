import { Client } from "pg";
import { sql } from "kysely";
import { expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { hasMoreToFollow } from "../../src/replay/shadows/log.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";

const seeds = `
  insert into tidegate.shadow_seed (tenant_id, upstream_id, partition, position, entity, server_id)
  select 'ours', 'next', n % 16, -n, 'activity', n::text from generate_series(1, 5000) n`;

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
