import { sql, type Kysely } from "kysely";

import { inTenant } from "../../platform/db.ts";
import type { Database } from "../../platform/schema.ts";
import { overdueMs, type OverdueLane } from "../due.ts";
import { hasMoreToFollow } from "./log.ts";

/**
 * The lanes of a tenant's shadows that nobody drains or has put aside, although they are due or have more to follow.
 */
export async function readOverdueShadowLanes(
  db: Kysely<Database>,
  tenantId: string,
  upstreamIds: readonly string[],
): Promise<OverdueLane[]> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string; overdue_ms: number }>`
      select lane_id, coalesce(extract(epoch from now() - due_at)::float8 * 1000, 0) as overdue_ms from lane
      where tenant_id = ${tenantId} and upstream_id = any(${upstreamIds}::text[]) and partition is not null
        and not aside and (lease_until is null or lease_until <= now())
        and case when due_at is null
          then ${hasMoreToFollow(sql`lane.position`)}
          else due_at <= now() - ${overdueMs}::integer * interval '1 millisecond' end`.execute(trx),
  );
  return rows.map((row) => ({ laneId: row.lane_id, overdueMs: row.overdue_ms }));
}
