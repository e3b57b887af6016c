import { sql, type Kysely, type RawBuilder } from "kysely";

import { inTenant } from "../../platform/db.ts";
import type { Database } from "../../platform/schema.ts";
import { overdueMs, type OverdueLane } from "../due.ts";
import { hasMoreToFollow } from "./log.ts";

/**
 * The lanes of a tenant's shadows that nobody drains or has put aside, although they are due, have more to follow, or hold
 * something behind what has ended.
 */
export async function readOverdueShadowLanes(
  db: Kysely<Database>,
  tenantId: string,
  upstreamIds: readonly string[],
): Promise<OverdueLane[]> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string; overdue_ms: number }>`
      with free as materialized (
        select tenant_id, upstream_id, partition, position, follows_from, due_at, lane_id, lane_id::uuid as client_id
        from lane
        where tenant_id = ${tenantId} and upstream_id = any(${upstreamIds}::text[]) and partition is not null
          and not aside and (lease_until is null or lease_until <= now())
      )
      select lane_id, coalesce(extract(epoch from now() - due_at)::float8 * 1000, 0) as overdue_ms from free lane
      where case when due_at is null
        then ${hasMoreToFollow(sql`lane.position`)} or ${holdsForNothing(tenantId)}
        else due_at <= now() - ${overdueMs}::integer * interval '1 millisecond' end`.execute(trx),
  );
  return rows.map((row) => ({ laneId: row.lane_id, overdueMs: row.overdue_ms }));
}

/** What it was held behind has ended in another lane at the very moment when it was held. */
function holdsForNothing(tenantId: string): RawBuilder<unknown> {
  return sql`exists (
    select 1 from delivery h
    where h.tenant_id = ${tenantId} and h.client_id = lane.client_id and h.state = 'held' and not exists (
      select 1 from delivery b
      where b.tenant_id = ${tenantId} and b.upstream_id = h.upstream_id and b.mutation_id = h.blocked_by
    )
  )`;
}
