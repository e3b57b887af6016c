import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";

/** Who made a batch, as its token said it. Nobody in particular has an empty user ID. */
export interface Author {
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
  receivedAt: Date;
}

/** A block of a client's log as it is stored. */
export interface BlockRow extends Omit<Author, "userId" | "requestId" | "receivedAt"> {
  client_id: string;
  last_seq: string;
  user_id: string;
  request_id: string;
  received_at: Date;
  key_id: string;
  /** Null when its time was over; see `inbox/prune`. */
  payload: Buffer | null;
}

// A block without its payload is read as well, so that it is missed.
const bytesOf = sql`coalesce(octet_length(payload), 0)`;

/** The blocks after the lanes' positions, in order; of each client as far as `sliceBytesMax` goes. */
export async function readBlocks(
  trx: Transaction<Database>,
  tenantId: string,
  lanes: { client_id: string; position: string }[],
  sliceBytesMax: number,
): Promise<BlockRow[]> {
  if (lanes.length === 0) return [];
  const { rows } = await sql<BlockRow>`
    select b.client_id, b.last_seq, b.user_id, b.scopes, b.roles, b.request_id, b.received_at, b.key_id, b.payload
    from unnest(${lanes.map((lane) => lane.client_id)}::uuid[], ${lanes.map(({ position }) => position)}::bigint[])
      as l (client_id, position)
    cross join lateral (
      select near.*, sum(${bytesOf}) over (order by last_seq) - ${bytesOf} as bytes_before
      from (
        select * from inbox_block
        where tenant_id = ${tenantId} and client_id = l.client_id and last_seq > l.position
        order by last_seq limit 50
      ) near
    ) b
    where b.bytes_before < ${sliceBytesMax}
    order by b.client_id, b.last_seq`.execute(trx);
  return rows;
}

/** A block's text, and who made it. */
export interface OpenBlock {
  text: string;
  author: Author;
}

/** @throws a plain `Error` when the payload is gone: a mutation that is still to be replayed must not be passed over. */
export function openBlock(block: BlockRow, codec: PayloadCodec): OpenBlock {
  if (block.payload === null) throw payloadIsGone(block);
  const { user_id: userId, scopes, roles, request_id: requestId, received_at: receivedAt } = block;
  const author = { userId, scopes, roles, requestId, receivedAt };
  return { text: codec.decode(block.key_id, block.payload), author };
}

function payloadIsGone({ client_id: clientId, last_seq: lastSeq }: BlockRow): Error {
  return new Error(
    `the payload of the batch of client ${clientId} up to seq ${lastSeq} is gone, though it is still to be replayed; ` +
      "its lane stands still until the payload is put back from a backup",
  );
}

/**
 * The blocks of a client's log that hold these mutations, in order: from the first on, as far as `bytesMax` goes; a single
 * larger one all the same.
 */
export async function readBlocksOf(
  trx: Transaction<Database>,
  tenantId: string,
  { clientId, seqs }: { clientId: string; seqs: number[] },
  { codec, bytesMax }: { codec: PayloadCodec; bytesMax: number },
): Promise<OpenBlock[]> {
  const { rows } = await sql<BlockRow>`
    with wanted as (
      select distinct b.last_seq from unnest(${seqs}::bigint[]) as m (seq)
      cross join lateral (
        select last_seq from inbox_block
        where tenant_id = ${tenantId} and client_id = ${clientId} and last_seq >= m.seq order by last_seq limit 1
      ) b
    )
    select * from (
      select b.*, sum(${bytesOf}) over (order by b.last_seq) - ${bytesOf} as bytes_before
      from wanted cross join lateral (
        select * from inbox_block
        where tenant_id = ${tenantId} and client_id = ${clientId} and last_seq = wanted.last_seq limit 1
      ) b
    ) near
    where bytes_before < ${bytesMax} order by last_seq`.execute(trx);
  return rows.map((row) => openBlock(row, codec));
}
