import { sql, type RawBuilder, type Transaction } from "kysely";

import { partitions } from "../../change-feed/applied-log.ts";
import type { Database } from "../../platform/schema.ts";

/** The log is gone through by partition, in each by position. */
export interface LogPlace {
  partition: number;
  position: number;
}

/**
 * Looks at `limit` rows of the log, of one partition, and deletes those that no shadow of the tenant needs. A shadow needs
 * what its lane has not passed, and what is open in it: parked, held or under way. What it has passed and ended is never
 * read again: a person decides about open changes only, and a database that is put back to an earlier moment has the log
 * of that moment. So of a tenant without a shadow all goes.
 *
 * A shadow that has no lanes yet follows from where it was added. One that is being added meanwhile needs nothing that can
 * be seen here: it follows from a position that no row has at that moment.
 *
 * It takes no lock that a commit waits for, and may stop after any call.
 */
export async function pruneLog(
  trx: Transaction<Database>,
  tenantId: string,
  { after = { partition: 0, position: 0 }, limit }: { after: LogPlace | undefined; limit: number },
): Promise<{ next: LogPlace | undefined; pruned: { change: number } }> {
  const { rows } = await deletePassed(tenantId, after, limit).execute(trx);
  const { looked_at: lookedAt = 0, last = null, change = 0 } = rows[0] ?? {};
  const { partition } = after;
  const isOver = lookedAt < limit || last === null;
  if (!isOver) return { next: { partition, position: Number(last) }, pruned: { change } };
  const isLast = partition + 1 >= partitions;
  return { next: isLast ? undefined : { partition: partition + 1, position: 0 }, pruned: { change } };
}

interface DeletedChanges {
  looked_at: number;
  last: string | null;
  change: number;
}

/**
 * One statement: how far the lanes have come, and what is open there, belong to one moment. By arrays, so that whatever is
 * believed of the tables they are read by their keys.
 */
export function deletePassed(
  tenantId: string,
  { partition, position }: LogPlace,
  limit: number,
): RawBuilder<DeletedChanges> {
  return sql<DeletedChanges>`
    with follower as materialized (
      select s.upstream_id, greatest(l.position, s.follows_from) as reached
      from shadow s
      left join lane l on l.tenant_id = ${tenantId} and l.upstream_id = s.upstream_id and l.partition = ${partition}
      where s.tenant_id = ${tenantId}
    ), batch as materialized (
      select position, change_id from applied_change
      where tenant_id = ${tenantId} and partition = ${partition} and position > ${position}::bigint
        and position <= (select coalesce(min(reached), ${String(2n ** 63n - 1n)}::bigint) from follower)
      order by position limit ${limit}
    ), open as materialized (
      select mutation_id from delivery
      where tenant_id = ${tenantId} and upstream_id = any(array(select upstream_id from follower))
        and mutation_id = any(array(select change_id from batch))
    ), passed as materialized (
      select position from batch where change_id <> all(array(select mutation_id from open))
    ), deleted as (
      delete from applied_change
      where tenant_id = ${tenantId} and partition = ${partition}
        and position = any(array(select position from passed))
      returning 1
    )
    select (select count(*) from batch)::integer as looked_at, (select max(position) from batch) as last,
      (select count(*) from deleted)::integer as change`;
}

/**
 * Deletes up to `limit` seeds of a shadow that has them all: every lane has passed its own, and none is open. Before, all
 * of them stay: whether a record comes before the one that refers to it is asked of the whole list.
 */
export async function pruneSeeds(
  trx: Transaction<Database>,
  tenantId: string,
  limit: number,
): Promise<number> {
  const { rows } = await deleteSeeds(tenantId, limit).execute(trx);
  return rows[0]?.seed ?? 0;
}

export function deleteSeeds(tenantId: string, limit: number): RawBuilder<{ seed: number }> {
  return sql<{ seed: number }>`
    with seeded as materialized (
      select s.upstream_id from shadow s
      where s.tenant_id = ${tenantId} and exists (
        select 1 from shadow_seed e where e.tenant_id = ${tenantId} and e.upstream_id = s.upstream_id
      ) and exists (
        select 1 from lane l
        where l.tenant_id = ${tenantId} and l.upstream_id = s.upstream_id and l.partition is not null
      ) and not exists (
        select 1 from lane l
        cross join lateral (
          select 1 from shadow_seed e where e.tenant_id = ${tenantId} and e.upstream_id = l.upstream_id
            and e.partition = l.partition and e.position > l.position
          limit 1
        ) ahead
        where l.tenant_id = ${tenantId} and l.upstream_id = s.upstream_id and l.partition is not null
      ) and not exists (
        select 1 from delivery d
        where d.tenant_id = ${tenantId} and d.upstream_id = s.upstream_id and d.seq < 0
      )
      limit 1
    ), batch as materialized (
      select partition, position from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = (select upstream_id from seeded)
      order by partition, position limit ${limit}
    ), deleted as (
      delete from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = (select upstream_id from seeded)
        and partition = any(array(select distinct partition from batch))
        and position = any(array(select position from batch))
      returning 1
    )
    select count(*)::integer as seed from deleted`;
}
