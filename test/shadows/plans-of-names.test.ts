import { sql, type RawBuilder } from "kysely";
import { Client } from "pg";
import { expect, test } from "vitest";

import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { absencesSql } from "../../src/replay/shadows/absences.ts";
import { laneIdOf } from "../../src/replay/shadows/log.ts";
import { serverIdSql } from "../../src/replay/shadows/records.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";

/** How the service reads what is asked: right after the rows were written, and once `analyzed` was counted. */
async function plansOf(asked: RawBuilder<unknown>, rows: string[], analyzed: string): Promise<string[]> {
  const database = await createTestDatabase();
  const owner = new Client({ connectionString: database.superuserUrl });
  await owner.connect();
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  const planOf = async (): Promise<string> =>
    await inTenant(db, "ours", async (trx) => {
      const plan = await sql<Record<string, string>>`explain ${asked}`.execute(trx);
      return plan.rows.map((row) => row["QUERY PLAN"]).join("\n");
    });
  try {
    await owner.query("set search_path to tidegate");
    for (const statement of rows) await owner.query(statement);
    const uncounted = await planOf();
    await owner.query(`analyze ${analyzed}`);
    return [uncounted, await planOf()];
  } finally {
    await db.destroy();
    await owner.end();
    await database.drop();
  }
}

const laneIds = Array.from({ length: 16 }, (_, partition) => laneIdOf("ours", "next", partition));

const openInLanes = [
  `insert into lane (tenant_id, lane_id, upstream_id, partition, position, follows_from)
   select 'ours', id, 'next', n - 1, 1000000, 0
   from unnest('{${laneIds.join(",")}}'::text[]) with ordinality as l (id, n)`,
  `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key)
   select 'ours', 'next', gen_random_uuid(), l.lane_id::uuid, n, 'parked', 'mentor/' || n
   from generate_series(1, 20000) n join lane l on l.partition = n % 16`,
];

test("what may bring a missing reference is read from the record's own lane, however much is open in the others", async () => {
  const asked = absencesSql("ours", "next", [{ entity: "mentor", serverId: "none", position: 900_000 }]);
  for (const plan of await plansOf(asked, openInLanes, "delivery"))
    expect(plan).toMatch(/delivery_by_client.*\n +Index Cond:.*client_id = a\.lane_id.*seq < /);
});

const known = `
  insert into shadow_record (tenant_id, upstream_id, entity, server_id, own_id, reached)
  select 'ours', 'next', 'mentor', n::text, 'own ' || n, 1 from generate_series(1, 20000) n`;

test("the record that a shadow has under an ID of its own is read by that ID", async () => {
  const asked = serverIdSql("ours", "next", { entity: "mentor", ownId: "own 17" });
  for (const plan of await plansOf(asked, [known], "shadow_record"))
    expect(plan).toMatch(/shadow_record_by_own_id.*\n +Index Cond:.*own_id = /);
});
