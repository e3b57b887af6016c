import { sql, type RawBuilder, type Transaction } from "kysely";

import { partitionOf } from "../../change-feed/applied-log.ts";
import type { Database } from "../../platform/schema.ts";
import type { RecordKey } from "../../records/record.ts";
import { laneIdOf } from "./log.ts";

/** Why a shadow does not have a record. */
export interface Absence {
  /** It has it by now. */
  hasCome: boolean;
  /** Something stands before `position` in the record's lane that may bring it. */
  mayCome: boolean;
  /** The first change of it before `position` that its lane has passed without an end. */
  blockedBy: string | undefined;
}

export interface AbsentRecord extends RecordKey {
  /** Where the one stands that needs it. */
  position: number;
}

/**
 * Looks for what may still bring records that a shadow does not have, in the order given. Of a seed only the seeds before
 * it count; of a change in the log, everything in the other's lane before it. So two never wait for each other, nor is one held
 * behind the other and that one behind it.
 */
export async function readAbsences(
  trx: Transaction<Database>,
  tenantId: string,
  upstreamId: string,
  absent: AbsentRecord[],
): Promise<Absence[]> {
  const { rows } = await absencesSql(tenantId, upstreamId, absent).execute(trx);
  return rows.map((row) => ({
    hasCome: row.has_come,
    mayCome: row.may_come,
    blockedBy: row.blocked_by ?? undefined,
  }));
}

interface AbsenceRow {
  has_come: boolean;
  may_come: boolean;
  blocked_by: string | null;
}

export function absencesSql(
  tenantId: string,
  upstreamId: string,
  absent: AbsentRecord[],
): RawBuilder<AbsenceRow> {
  const partitions = absent.map(partitionOf);
  // Open deliveries are found by the lane, which is of this shadow alone: to name the shadow too would offer the planner
  // an index with all that is open in it. The ID is handed over as a UUID: under row-level security a cast gets no index.
  const laneIds = partitions.map((partition) => laneIdOf(tenantId, upstreamId, partition));
  return sql<AbsenceRow>`
    select exists (
        select 1 from shadow_record r where r.tenant_id = ${tenantId} and r.upstream_id = ${upstreamId}
          and r.entity = a.entity and r.server_id = a.server_id
      ) as has_come, case when a.position < 0 then exists (
        select 1 from shadow_seed s where s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId}
          and s.entity = a.entity and s.server_id = a.server_id and s.position > l.position and s.position < a.position
      ) else exists (
        select 1 from shadow_seed s where s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId}
          and s.partition = l.partition and s.position > l.position
      ) or exists (
        select 1 from applied_change c where c.tenant_id = ${tenantId} and c.partition = l.partition
          and c.position > greatest(l.position, l.follows_from) and c.position < a.position
      ) end as may_come,
      (select d.mutation_id from delivery d where d.tenant_id = ${tenantId} and d.client_id = a.lane_id
        and d.record_key = a.entity || '/' || a.server_id and d.seq < a.position
        and (d.state in ('parked', 'held') or d.seq <= l.position)
        order by d.seq limit 1) as blocked_by
    from unnest(${absent.map(({ entity }) => entity)}::text[], ${absent.map(({ serverId }) => serverId)}::text[],
      ${absent.map(({ position }) => position)}::bigint[], ${partitions}::smallint[], ${laneIds}::uuid[])
      with ordinality as a (entity, server_id, position, partition, lane_id, place)
    join lane l on l.tenant_id = ${tenantId} and l.upstream_id = ${upstreamId} and l.partition = a.partition
    order by a.place`;
}

/** Of the records among `keys`, by `recordKey`, those that are seeded before a position. */
export async function readSeededBefore(
  trx: Transaction<Database>,
  tenantId: string,
  upstreamId: string,
  { keys, position }: { keys: RecordKey[]; position: number },
): Promise<Set<string>> {
  const { rows } = await sql<{ entity: string; server_id: string }>`
    select s.entity, s.server_id
    from unnest(${keys.map(({ entity }) => entity)}::text[], ${keys.map(({ serverId }) => serverId)}::text[])
      as key (entity, server_id)
    join shadow_seed s on s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId} and s.entity = key.entity
      and s.server_id = key.server_id
    where s.position < ${position} and not s.is_completion`.execute(trx);
  return new Set(rows.map((row) => `${row.entity}/${row.server_id}`));
}
