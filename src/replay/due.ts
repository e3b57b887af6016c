import { sql, type Kysely } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

export interface OverdueLane {
  laneId: string;
  overdueMs: number;
}

/** A lane whose wake is on its way is not overdue yet. */
export const overdueMs = 2_000;
const limit = 1_000;

/**
 * The primary's lanes of a tenant that have been due for a while, and that nobody drains or has put aside, oldest first.
 */
export async function readOverdueLanes(db: Kysely<Database>, tenantId: string): Promise<OverdueLane[]> {
  const rows = await inTenant(db, tenantId, async (trx) => {
    const found = await sql<{ lane_id: string; overdue_ms: number }>`
      select lane_id, extract(epoch from now() - due_at)::float8 * 1000 as overdue_ms from lane
      where tenant_id = ${tenantId} and partition is null and not aside
        and due_at <= now() - ${overdueMs}::integer * interval '1 millisecond'
        and (lease_until is null or lease_until <= now())
      order by due_at limit ${limit}`.execute(trx);
    return found.rows;
  });
  return rows.map((row) => ({ laneId: row.lane_id, overdueMs: row.overdue_ms }));
}

/** Makes lanes due that wait for something that has happened. Those in hand see it when they are given back. */
export async function makeDue(db: Kysely<Database>, tenantId: string, laneIds: string[]): Promise<void> {
  await inTenant(db, tenantId, (trx) =>
    sql`
      with waiting as (
        select lane_id from lane
        where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[]) and due_at > now()
          and lease_until is null
        order by lane_id for update
      )
      update lane set due_at = now() from waiting
      where lane.tenant_id = ${tenantId} and lane.lane_id = waiting.lane_id`.execute(trx),
  );
}
