import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database, FeedTable } from "../platform/schema.ts";

/** The feed's rows are gone through by audience, in each by position. */
export interface FeedRowKey {
  audience: string;
  position: number;
}

export interface PrunedFeed {
  /** The last row that was looked at; undefined at the end. */
  next: FeedRowKey | undefined;
  pruned: Record<FeedTable["kind"], number>;
}

/**
 * Looks at `limit` rows of the feed and deletes those that no reader needs.
 *
 * A row is superseded when a later one of the same record, or of the same parked mutation, stands in the same audience.
 * Who reads on from before it is told of the record by that one, as it stands then. Where it may be is known from the
 * record:
 *
 *  - in an audience that the record is in, its last row is the one at its feed position. In one that it has left, that is
 *    a revoke. So the row of a change is superseded once the record has changed again, and a revoke once it is back;
 *  - a mutation that has its outcome has a row for that.
 *
 * The row at which a live record stands stays in each of its audiences, for snapshots and for those who begin.
 *
 * Up to the horizon, from before which no cursor is honoured, the rest goes too: revokes, deleted records, outcomes. A
 * mutation that is still parked keeps its row.
 *
 * It takes no lock that a commit waits for, and may stop after any call.
 */
export async function pruneFeed(
  trx: Transaction<Database>,
  tenantId: string,
  { after, limit }: { after: FeedRowKey | undefined; limit: number },
): Promise<PrunedFeed> {
  const { rows } = await deleteRows(tenantId, after, limit).execute(trx);
  const [row] = rows;
  if (!row) throw new Error("an aggregate without its row");
  const { looked_at: lookedAt, audience, position, record, revoke, outcome, parked } = row;
  return {
    next: lookedAt === limit && audience !== null ? { audience, position: Number(position) } : undefined,
    pruned: { record, revoke, outcome, parked },
  };
}

type Deleted = { looked_at: number; audience: string | null; position: string | null } & Record<
  FeedTable["kind"],
  number
>;

export function deleteRows(
  tenantId: string,
  after: FeedRowKey | undefined,
  limit: number,
): RawBuilder<Deleted> {
  return sql<Deleted>`
    with batch as materialized (
      select audience, position, kind, entity, record_id, mutation_id,
        (select position from feed_horizon where tenant_id = ${tenantId}) as horizon
      from feed
      where tenant_id = ${tenantId}
        and (audience, position) > (${after?.audience ?? ""}, ${after?.position ?? 0}::bigint)
      order by audience, position limit ${limit}
    ), judged as (
      select b.audience, b.position, ${isSuperseded} or (b.position <= b.horizon and ${isOnlyForCursors}) as may_go
      from batch b
      left join record r on r.tenant_id = ${tenantId} and r.entity = b.entity and r.server_id = b.record_id
      left join mutation_key m on m.tenant_id = ${tenantId} and b.kind = 'parked' and m.mutation_id = b.mutation_id
    ), deleted as (
      delete from feed using judged
      where may_go and feed.tenant_id = ${tenantId} and feed.audience = judged.audience
        and feed.position = judged.position
      returning feed.kind
    ), last as (
      select audience, position from batch order by audience desc, position desc limit 1
    )
    select (select count(*) from batch)::integer as looked_at, (select audience from last) as audience,
      (select position from last) as position,
      count(*) filter (where kind = 'record')::integer as record,
      count(*) filter (where kind = 'revoke')::integer as revoke,
      count(*) filter (where kind = 'outcome')::integer as outcome,
      count(*) filter (where kind = 'parked')::integer as parked
    from deleted`;
}

const isInAudience = sql`substr(b.audience, 3) = any(r.scopes)`;

/** Of revokes that follow each other in one audience the last stays: others of the batch are seen to come before it. */
const isSuperseded = sql`case b.kind
  when 'record' then r.feed_position > b.position
  when 'revoke' then ${isInAudience} or lead(b.position) over (
    partition by b.audience, b.entity, b.record_id order by b.position
  ) is not null
  when 'parked' then m.status is not null or lead(b.position) over (
    partition by b.audience, b.mutation_id order by b.position
  ) is not null
  else false
end`;

const isOnlyForCursors = sql`case b.kind
  when 'record' then r.deleted
  when 'parked' then false
  else true
end`;
