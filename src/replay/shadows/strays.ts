import { sql, type Kysely, type RawBuilder, type Transaction } from "kysely";

import { inTenant } from "../../platform/db.ts";
import type { Database } from "../../platform/schema.ts";

/** So many of what something is held behind are looked at in each lane at once. */
const blockersMax = 50;

const first = "00000000-0000-0000-0000-000000000000";

/** Where a look at a shadow's lane begins: behind this mutation. */
export interface Look {
  upstreamId: string;
  laneId: string;
  after: string;
}

/**
 * Looks for the lanes that hold something behind what has ended in another lane: at the very moment when it was held, or
 * the word was lost. Each call looks at the next part of what there is, and after the last at the first again; so a call
 * costs the same however much is held, and nothing is passed over for good.
 */
export function createStrayLook(
  db: Kysely<Database>,
): (tenantId: string, lanes: readonly Omit<Look, "after">[]) => Promise<string[]> {
  const reached = new Map<string, string>();
  return async (tenantId, lanes) => {
    const looks = lanes.map((lane) => ({ ...lane, after: reached.get(lane.laneId) ?? first }));
    return await inTenant(db, tenantId, async (trx) => {
      const { rows } = await readBlockers(tenantId, looks).execute(trx);
      for (const { laneId } of looks) reached.delete(laneId);
      for (const row of rows) if (row.place === blockersMax) reached.set(row.lane_id, row.blocked_by);
      const found = new Set(rows.flatMap((row) => (row.has_ended ? [row.lane_id] : [])));
      return found.size === 0 ? [] : await readIdle(trx, tenantId, [...found]);
    });
  };
}

export interface Blocker {
  lane_id: string;
  blocked_by: string;
  place: number;
  has_ended: boolean;
}

/** The next mutations behind which something is held, from the index of those alone: one step for each. */
export function readBlockers(tenantId: string, looks: Look[]): RawBuilder<Blocker> {
  const next = (laneId: string, after: string) => sql`
    select d.blocked_by from delivery d
    where d.tenant_id = ${tenantId} and d.client_id = ${sql.ref(laneId)} and d.state = 'held'
      and d.blocked_by > ${sql.ref(after)}
    order by d.blocked_by, d.seq limit 1`;
  return sql<Blocker>`
    with recursive blocker (upstream_id, lane_id, blocked_by, place) as (
      select look.upstream_id, look.lane_id, head.blocked_by, 1
      from unnest(${looks.map(({ upstreamId }) => upstreamId)}::text[], ${looks.map(({ laneId }) => laneId)}::uuid[],
        ${looks.map(({ after }) => after)}::uuid[]) as look (upstream_id, lane_id, after)
      cross join lateral (${next("look.lane_id", "look.after")}) head
      union all
      select blocker.upstream_id, blocker.lane_id, later.blocked_by, blocker.place + 1
      from blocker cross join lateral (${next("blocker.lane_id", "blocker.blocked_by")}) later
      where blocker.place < ${blockersMax}
    )
    select lane_id, blocked_by, place, known.is_open is null as has_ended
    from blocker left join lateral (
      select true as is_open from delivery d
      where d.tenant_id = ${tenantId} and d.upstream_id = blocker.upstream_id and d.mutation_id = blocker.blocked_by
      limit 1
    ) known on true`;
}

/** Those that have no time to be looked at, and that nobody has in hand. */
async function readIdle(trx: Transaction<Database>, tenantId: string, laneIds: string[]): Promise<string[]> {
  const { rows } = await sql<{ lane_id: string }>`
    select lane_id from lane
    where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[]) and due_at is null and not aside
      and (lease_until is null or lease_until <= now())`.execute(trx);
  return rows.map((row) => row.lane_id);
}
