import { sql, type Kysely } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

/**
 * Lanes of a tenant that have been due for a while and that nobody drains, oldest first.
 *
 * @param overdueMs spares the lanes whose wake is just on its way.
 */
export async function readOverdueLanes(
  db: Kysely<Database>,
  tenantId: string,
  { overdueMs, limit }: { overdueMs: number; limit: number },
): Promise<string[]> {
  const rows = await inTenant(db, tenantId, async (trx) => {
    const found = await sql<{ lane_id: string }>`
      select lane_id from lane
      where tenant_id = ${tenantId} and due_at <= now() - ${overdueMs}::integer * interval '1 millisecond'
        and (lease_until is null or lease_until <= now())
      order by due_at limit ${limit}`.execute(trx);
    return found.rows;
  });
  return rows.map((row) => row.lane_id);
}

/** Makes lanes due that wait for something that has happened. */
export async function makeDue(db: Kysely<Database>, tenantId: string, laneIds: string[]): Promise<void> {
  await inTenant(db, tenantId, (trx) =>
    sql`
      update lane set due_at = now()
      where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[]) and due_at > now()
        and lease_until is null`.execute(trx),
  );
}
