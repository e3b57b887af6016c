import { sql, type Kysely } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

/**
 * Puts due lanes that nobody has in hand aside, and resolves with those that are aside after it. One that an operator wants
 * looked at is not: not everything that is to be done there needs the upstream.
 */
export async function setLanesAside(
  db: Kysely<Database>,
  tenantId: string,
  laneIds: string[],
): Promise<Set<string>> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string }>`
      with due as (
        select lane_id from lane
        where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[])
          and (due_at <= clock_timestamp() or (due_at is null and partition is not null)) and not look_again
          and (lease_until is null or lease_until <= clock_timestamp())
        order by lane_id for update
      )
      update lane set aside = true, due_at = coalesce(lane.due_at, clock_timestamp()) from due
      where lane.tenant_id = ${tenantId} and lane.lane_id = due.lane_id
      returning lane.lane_id`.execute(trx),
  );
  return new Set(rows.map((row) => row.lane_id));
}

/** Takes back lanes of one upstream that were put aside: those that have been due for longest, in that order. */
export async function takeLanesBack(
  db: Kysely<Database>,
  tenantId: string,
  { upstreamId, limit }: { upstreamId: string; limit: number },
): Promise<string[]> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string; due_at: Date | null }>`
      with oldest as (
        select lane_id from lane
        where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and aside
        order by due_at limit ${limit} for update skip locked
      )
      update lane set aside = false from oldest
      where lane.tenant_id = ${tenantId} and lane.lane_id = oldest.lane_id
      returning lane.lane_id, lane.due_at`.execute(trx),
  );
  return rows.toSorted((a, b) => Number(a.due_at) - Number(b.due_at)).map((row) => row.lane_id);
}
