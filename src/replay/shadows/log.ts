import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Mutation } from "../../inbox/mutation.ts";
import type { PayloadCodec } from "../../platform/payload-codec.ts";
import type { Database } from "../../platform/schema.ts";
import { uuidOf } from "../../platform/uuid.ts";
import type { Author } from "../blocks.ts";
import { referenceOf } from "./records.ts";

/** Whether a shadow's `lane` has anything to follow after a position. */
export function hasMoreToFollow(position: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(exists (
    select 1 from shadow_seed s where s.tenant_id = lane.tenant_id and s.upstream_id = lane.upstream_id
      and s.partition = lane.partition and s.position > ${position}
  ) or exists (
    select 1 from applied_change c where c.tenant_id = lane.tenant_id and c.partition = lane.partition
      and c.position > greatest(${position}, lane.follows_from)
  ))`;
}

/** One of a shadow's lanes, for all that a tenant's shadows have. */
export function laneIdOf(tenantId: string, upstreamId: string, partition: number): string {
  return uuidOf(`tidegate lane ${tenantId} ${upstreamId} ${partition}`);
}

/** What a slice of a lane reads at once; of whole records, a single larger one is read all the same. */
const rowsMax = 100;

/** A place in the log of what the primary took, or of what a shadow is seeded with. */
export interface FollowedEntry {
  /** What the mutation changed, with its position in this log as its seq and the server ID as its record ID. */
  mutation: Mutation;
  /** Who made it; nobody is named by an empty user ID. */
  author: Author;
  change: {
    /** The UUID by which the record can be looked up in the shadow. */
    reference: string;
    /** Others made it in the primary. */
    isForeign: boolean;
    /** It only sets what a seed had to leave out. */
    isCompletion: boolean;
    /** The position in the log whose state of the record this is. */
    reached: number;
    /** The change together with what others had changed by then; undefined when they had not. */
    others: string | undefined;
    /** The record afterwards; undefined when it was deleted. */
    whole: string | undefined;
  };
}

export interface FollowedRow {
  lane_id: string;
  position: string;
  change_id: string | null;
  entity: string;
  server_id: string;
  op: "create" | "update" | "delete" | null;
  is_foreign: boolean;
  is_completion: boolean;
  user_id: string | null;
  request_id: string | null;
  occurred_at: Date | null;
  created_at: Date;
  /** Of a seed, the position of the state that is read. */
  reached: string;
  key_id: string | null;
  patch: Buffer | null;
  others: Buffer | null;
  data: Buffer | null;
}

/** The seeds after the lanes' positions; of lanes that have none left, the log. In order. */
export async function readFollowed(
  trx: Transaction<Database>,
  tenantId: string,
  lanes: { lane_id: string; position: string }[],
  bytesMax: number,
): Promise<FollowedRow[]> {
  if (lanes.length === 0) return [];
  const claimed = sql`unnest(${lanes.map(({ lane_id }) => lane_id)}::text[]) as claimed (lane_id)
    join lane l on l.tenant_id = ${tenantId} and l.lane_id = claimed.lane_id`;
  const seeds = sql`
    select ${seedColumns} from ${claimed}
    cross join lateral (
      select * from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = l.upstream_id and partition = l.partition
        and position > l.position
      order by position limit ${rowsMax}
    ) s
    join shadow a on a.tenant_id = ${tenantId} and a.upstream_id = l.upstream_id
    left join record r on r.tenant_id = ${tenantId} and r.entity = s.entity and r.server_id = s.server_id`;
  const changes = sql`
    select ${changeColumns} from ${claimed}
    cross join lateral (
      select * from applied_change
      where tenant_id = ${tenantId} and partition = l.partition and position > greatest(l.position, l.follows_from)
      order by position limit ${rowsMax}
    ) c
    where not exists (
      select 1 from shadow_seed s where s.tenant_id = ${tenantId} and s.upstream_id = l.upstream_id
        and s.partition = l.partition and s.position > l.position
    )`;
  return await readWithin(trx, bytesMax, { seeds, changes });
}

/** What stands at these positions of a lane, in order: from the first on, as far as `bytesMax` goes. */
export async function readFollowedAt(
  trx: Transaction<Database>,
  tenantId: string,
  { laneId, positions }: { laneId: string; positions: number[] },
  bytesMax: number,
): Promise<FollowedRow[]> {
  const wanted = sql`lane l cross join unnest(${positions}::bigint[]) as wanted (position)`;
  const isLane = sql`l.tenant_id = ${tenantId} and l.lane_id = ${laneId}`;
  const seeds = sql`
    select ${seedColumns} from ${wanted}
    cross join lateral (
      select * from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = l.upstream_id and partition = l.partition
        and position = wanted.position limit 1
    ) s
    join shadow a on a.tenant_id = ${tenantId} and a.upstream_id = l.upstream_id
    left join record r on r.tenant_id = ${tenantId} and r.entity = s.entity and r.server_id = s.server_id
    where ${isLane}`;
  const changes = sql`
    select ${changeColumns} from ${wanted}
    cross join lateral (
      select * from applied_change
      where tenant_id = ${tenantId} and partition = l.partition and position = wanted.position limit 1
    ) c
    where ${isLane}`;
  return await readWithin(trx, bytesMax, { seeds, changes });
}

/**
 * Of a lane `l`, its seeds `s` with their records `r` as they are. Their time is that of the shadow's adding `a`: what
 * was seeded before a recovery may be seeded again long after it.
 */
const seedColumns = sql`l.lane_id, s.position, null::uuid as change_id, s.entity, s.server_id, null as op,
  false as is_foreign, s.is_completion, null as user_id, null as request_id, null::timestamptz as occurred_at,
  a.created_at, coalesce(r.feed_position, 0) as reached, r.key_id, null::bytea as patch,
  null::bytea as others, case when not r.deleted then r.data end as data`;

/** Of a lane `l`, what the log says: `c`. */
const changeColumns = sql`l.lane_id, c.position, c.change_id, c.entity, c.server_id, c.op, c.is_foreign,
  false as is_completion, c.user_id, c.request_id, c.occurred_at, c.created_at, c.position as reached, c.key_id,
  c.patch, c.others, c.data`;

async function readWithin(
  trx: Transaction<Database>,
  bytesMax: number,
  { seeds, changes }: { seeds: RawBuilder<unknown>; changes: RawBuilder<unknown> },
): Promise<FollowedRow[]> {
  const { rows } = await sql<FollowedRow>`
    with seeds as (${seeds}), changes as (${changes})
    select lane_id, position, change_id, entity, server_id, op, is_foreign, is_completion, user_id, request_id,
      occurred_at, created_at, reached, key_id, patch, others, data
    from (
      select f.*, sum(coalesce(octet_length(patch), 0) + coalesce(octet_length(others), 0)
        + coalesce(octet_length(data), 0)) over (partition by lane_id order by position
        rows between unbounded preceding and 1 preceding) as bytes_before
      from (select * from seeds union all select * from changes) f
    ) f
    where coalesce(bytes_before, 0) < ${bytesMax}
    order by lane_id, position`.execute(trx);
  return rows;
}

/** What a claim has to follow, in order. */
export function toFollowed(rows: FollowedRow[], tenantId: string, codec: PayloadCodec): FollowedEntry[] {
  const text = (row: FollowedRow, bytes: Buffer | null): string | undefined =>
    bytes === null || row.key_id === null ? undefined : codec.decode(row.key_id, bytes);
  return rows.map((row) => {
    const key = { entity: row.entity, serverId: row.server_id };
    const reference = referenceOf(tenantId, key);
    const [patch, others, whole] = [text(row, row.patch), text(row, row.others), text(row, row.data)];
    return {
      mutation: {
        seq: Number(row.position),
        id: row.change_id ?? uuidOf(`tidegate ${row.is_completion ? "completion" : "seed"} ${reference}`),
        entity: row.entity,
        op: row.op ?? "create",
        recordId: row.server_id,
        baseVersion: null,
        base: undefined,
        data: patch,
        dependsOn: [],
        occurredAt: row.occurred_at,
      },
      author: {
        userId: row.user_id ?? "",
        scopes: [],
        roles: [],
        requestId: row.request_id ?? "",
        receivedAt: row.created_at,
      },
      change: {
        reference,
        isForeign: row.is_foreign,
        isCompletion: row.is_completion,
        reached: Number(row.reached),
        others,
        whole,
      },
    };
  });
}
