import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/** Attempts are gone through by their key. */
export interface AttemptKey {
  mutationId: string;
  upstreamId: string;
  /** As Postgres writes it, to the microsecond. */
  begunAt: string;
  epoch: number;
}

export interface PrunedAttempts {
  /** The last attempt that was looked at; undefined at the end. */
  next: AttemptKey | undefined;
  pruned: { attempt: number };
}

/**
 * Looks at `limit` attempts and deletes those that are older than `keepMs`, and than the round. There stays
 *
 *  - what was tried of a mutation that has no final outcome, or has had it only since then;
 *  - what was tried at an upstream, a shadow too, where the mutation is still open;
 *  - what has a younger attempt at the same upstream: evidence goes as a whole.
 *
 * Replay never reads an attempt.
 */
export async function pruneAttempts(
  trx: Transaction<Database>,
  tenantId: string,
  batch: { keepMs: number; after: AttemptKey | undefined; limit: number },
): Promise<PrunedAttempts> {
  const { rows } = await deleteAttempts(tenantId, batch).execute(trx);
  const [row] = rows;
  if (!row) throw new Error("an aggregate without its row");
  const { looked_at: lookedAt, mutation_id: mutationId, upstream_id: upstreamId, begun_at: begunAt } = row;
  const isFull = lookedAt === batch.limit && mutationId !== null && upstreamId !== null && begunAt !== null;
  return {
    next: isFull ? { mutationId, upstreamId, begunAt, epoch: Number(row.epoch) } : undefined,
    pruned: { attempt: row.deleted },
  };
}

interface Deleted {
  looked_at: number;
  deleted: number;
  mutation_id: string | null;
  upstream_id: string | null;
  begun_at: string | null;
  epoch: string | null;
}

// What is asked of each attempt is asked one by one: as joins, the planner may read a table as a whole.
export function deleteAttempts(
  tenantId: string,
  { keepMs, after, limit }: { keepMs: number; after: AttemptKey | undefined; limit: number },
): RawBuilder<Deleted> {
  const { mutationId, upstreamId, begunAt, epoch } = after ?? firstAttempt;
  const goneUntil = sql`(
    select least(gone_until, now() - ${keepMs}::float8 * interval '1 millisecond') from pruning
    where tenant_id = ${tenantId} and kind = 'attempts'
  )`;
  return sql<Deleted>`
    with batch as materialized (
      select mutation_id, upstream_id, begun_at, epoch, ${goneUntil} as gone_until from attempt
      where tenant_id = ${tenantId} and (mutation_id, upstream_id, begun_at, epoch) >
        (${mutationId}::uuid, ${upstreamId}, ${begunAt}::timestamptz, ${epoch}::bigint)
      order by mutation_id, upstream_id, begun_at, epoch limit ${limit}
    ), done as materialized (
      select mutation_id, upstream_id, begun_at, epoch from batch b
      where b.begun_at < b.gone_until and coalesce((
          select k.status is not null and k.settled_at < b.gone_until from mutation_key k
          where k.tenant_id = ${tenantId} and k.mutation_id = b.mutation_id
        ), true) and (
          select 1 from delivery d
          where d.tenant_id = ${tenantId} and d.upstream_id = b.upstream_id and d.mutation_id = b.mutation_id
        ) is null and (
          select a.begun_at < b.gone_until from attempt a
          where a.tenant_id = ${tenantId} and a.mutation_id = b.mutation_id and a.upstream_id = b.upstream_id
          order by a.begun_at desc limit 1
        )
    ), deleted as (
      delete from attempt using done
      where attempt.tenant_id = ${tenantId} and attempt.mutation_id = done.mutation_id
        and attempt.upstream_id = done.upstream_id and attempt.begun_at = done.begun_at
        and attempt.epoch = done.epoch
      returning 1
    ), last as (
      select mutation_id, upstream_id, begun_at, epoch from batch
      order by mutation_id desc, upstream_id desc, begun_at desc, epoch desc limit 1
    )
    select (select count(*) from batch)::integer as looked_at, (select count(*) from deleted)::integer as deleted,
      last.mutation_id, last.upstream_id, last.begun_at::text as begun_at, last.epoch
    from (select) as one left join last on true`;
}

const firstAttempt: AttemptKey = {
  mutationId: "00000000-0000-0000-0000-000000000000",
  upstreamId: "",
  begunAt: "-infinity",
  epoch: -1,
};
