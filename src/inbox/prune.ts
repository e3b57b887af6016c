import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/** Blocks with a payload are gone through by the time when they were received. */
export interface BlockKey {
  /** As Postgres writes it, to the microsecond. */
  receivedAt: string;
  clientId: string;
  lastSeq: number;
}

export interface PrunedPayloads {
  /** The last block that was looked at; undefined at the end. */
  next: BlockKey | undefined;
  pruned: { payload: number };
}

/**
 * Looks at `limit` blocks of the inbox that still have their payload, and empties those that nobody can read again.
 *
 * A block is read by its client's lane, from its position on, and for what the lane has passed and left open. So it goes
 * only when
 *
 *  - each of its mutations has its final outcome, for `keepMs` at least, and before the round began;
 *  - the lane has passed it: what was rejected at ingest has its outcome before that;
 *  - nothing of it is open in a delivery.
 *
 * None of these is ever undone, so no lane need be locked. Which mutations it held and who sent it stays. Shadows read what
 * the primary took from a log of their own.
 */
export async function prunePayloads(
  trx: Transaction<Database>,
  tenantId: string,
  batch: { keepMs: number; after: BlockKey | undefined; limit: number },
): Promise<PrunedPayloads> {
  const { rows } = await emptyBlocks(tenantId, batch).execute(trx);
  const [row] = rows;
  if (!row) throw new Error("an aggregate without its row");
  const { looked_at: lookedAt, received_at: receivedAt, client_id: clientId, last_seq: lastSeq } = row;
  const isFull = lookedAt === batch.limit && receivedAt !== null && clientId !== null;
  return {
    next: isFull ? { receivedAt, clientId, lastSeq: Number(lastSeq) } : undefined,
    pruned: { payload: row.emptied },
  };
}

interface Emptied {
  looked_at: number;
  emptied: number;
  received_at: string | null;
  client_id: string | null;
  last_seq: string | null;
}

// The lane's ID is made before the join: under row-level security a cast in it would keep it from the index.
export function emptyBlocks(
  tenantId: string,
  { keepMs, after, limit }: { keepMs: number; after: BlockKey | undefined; limit: number },
): RawBuilder<Emptied> {
  const { receivedAt, clientId, lastSeq } = after ?? firstBlock;
  const goneUntil = sql`(
    select least(gone_until, now() - ${keepMs}::float8 * interval '1 millisecond') from pruning
    where tenant_id = ${tenantId} and kind = 'payloads'
  )`;
  return sql<Emptied>`
    with batch as materialized (
      select received_at, client_id, last_seq, client_id::text as lane_id, ids, ${goneUntil} as gone_until
      from inbox_block
      where tenant_id = ${tenantId} and payload is not null and received_at < ${goneUntil}
        and (received_at, client_id, last_seq) > (${receivedAt}::timestamptz, ${clientId}::uuid, ${lastSeq}::bigint)
      order by received_at, client_id, last_seq limit ${limit}
    ), passed as materialized (
      select b.* from batch b
      join lane l on l.tenant_id = ${tenantId} and l.lane_id = b.lane_id and l.position >= b.last_seq
    ), done as materialized (
      select p.client_id, p.last_seq from passed p
      where cardinality(p.ids) = (
        select count(*) from unnest(p.ids) as i (mutation_id)
        join mutation_key k on k.tenant_id = ${tenantId} and k.mutation_id = i.mutation_id
        where k.status is not null and k.settled_at < p.gone_until and (
          select 1 from delivery d
          where d.tenant_id = ${tenantId} and d.client_id = p.client_id and d.seq = k.seq limit 1
        ) is null
      )
    ), emptied as (
      update inbox_block set payload = null from done
      where inbox_block.tenant_id = ${tenantId} and inbox_block.client_id = done.client_id
        and inbox_block.last_seq = done.last_seq
      returning 1
    ), last as (
      select received_at, client_id, last_seq from batch
      order by received_at desc, client_id desc, last_seq desc limit 1
    )
    select (select count(*) from batch)::integer as looked_at, (select count(*) from emptied)::integer as emptied,
      last.received_at::text as received_at, last.client_id, last.last_seq
    from (select) as one left join last on true`;
}

const firstBlock: BlockKey = {
  receivedAt: "-infinity",
  clientId: "00000000-0000-0000-0000-000000000000",
  lastSeq: 0,
};
