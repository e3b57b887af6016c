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
      with ${strayLanes(tenantId, upstreamIds)}
      select lane_id, coalesce(extract(epoch from now() - due_at)::float8 * 1000, 0) as overdue_ms from lane
      where tenant_id = ${tenantId} and upstream_id = any(${upstreamIds}::text[]) and partition is not null
        and not aside and (lease_until is null or lease_until <= now())
        and case when due_at is null
          then ${hasMoreToFollow(sql`lane.position`)} or lane_id in (select lane_id from stray)
          else due_at <= now() - ${overdueMs}::integer * interval '1 millisecond' end`.execute(trx),
  );
  return rows.map((row) => ({ laneId: row.lane_id, overdueMs: row.overdue_ms }));
}

/**
 * Those that hold something behind what has ended in another lane: at the very moment when it was held, or the word was
 * lost. Very many may be held behind a few.
 */
function strayLanes(tenantId: string, upstreamIds: readonly string[]): RawBuilder<unknown> {
  return sql`blockers as materialized (
    select distinct upstream_id, blocked_by from delivery
    where tenant_id = ${tenantId} and upstream_id = any(${upstreamIds}::text[]) and state = 'held'
  ), stray as materialized (
    select distinct h.client_id::text as lane_id
    from blockers b
    join delivery h on h.tenant_id = ${tenantId} and h.blocked_by = b.blocked_by and h.upstream_id = b.upstream_id
      and h.state = 'held'
    where not exists (
      select 1 from delivery d
      where d.tenant_id = ${tenantId} and d.upstream_id = b.upstream_id and d.mutation_id = b.blocked_by
    )
  )`;
}
