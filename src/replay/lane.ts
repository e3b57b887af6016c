import { sql, type Kysely, type Transaction } from "kysely";

import { decodeBlock, type LogEntry } from "../inbox/block.ts";
import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, DeliveryState } from "../platform/schema.ts";

/** The right to drain a lane, for as long as the lease lasts, under one epoch. */
export interface Claim {
  tenantId: string;
  laneId: string;
  upstreamId: string;
  clientId: string;
  epoch: number;
  position: number;
  /** Failures in a row of the mutation at the head. */
  failures: number;
  /** The last owner never released it: the mutation at the head may have been sent. */
  takenOver: boolean;
  /** On the monotonic clock (`performance.now()`), never later than the lease on the database's clock. */
  leaseUntil: number;
  /** The log after the position, as far as one slice reads it. */
  entries: ClaimedEntry[];
  /** Whether the log goes on after `entries`. */
  more: boolean;
  /** The client's mutations that did not go straight through, in order. */
  deliveries: OpenDelivery[];
}

/** A place in the log with what ingest stored beside it. */
export type ClaimedEntry = LogEntry & { author: Author };

/** Who made a batch, as its token said it. */
export interface Author {
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
}

export interface OpenDelivery {
  mutationId: string;
  seq: number;
  state: DeliveryState;
  recordKey: string;
  refersTo: string[];
  blockedBy: string | null;
  possiblySent: boolean;
  firstSentAt: Date | null;
  lastSentAt: Date | null;
  attempts: number;
}

export interface ClaimContext {
  codec: PayloadCodec;
  owner: string;
  leaseMs: number;
  /** How much of a log one slice reads at once; a single larger block is read all the same. */
  sliceBytesMax: number;
}

/**
 * Claims lanes of one tenant for draining and loads what a slice needs of each, in one transaction. A lane that is
 * someone else's, or not due, gives undefined.
 *
 * Only the database's clock decides. The result is in the order of `laneIds`.
 */
export async function claimLanes(
  db: Kysely<Database>,
  tenantId: string,
  laneIds: string[],
  context: ClaimContext,
): Promise<(Claim | undefined)[]> {
  const startedAt = performance.now();
  return await inTenant(db, tenantId, async (trx) => {
    const claimed = await claimRows(trx, tenantId, laneIds, context);
    const clientIds = claimed.map(({ client_id }) => client_id);
    const [blocks, deliveries] = await Promise.all([
      readBlocks(trx, tenantId, claimed, context.sliceBytesMax),
      readDeliveries(trx, tenantId, clientIds),
    ]);
    const claims = new Map(
      claimed.map((row) => [
        row.lane_id,
        toClaim(tenantId, row, {
          leaseUntil: startedAt + context.leaseMs,
          blocks: blocks.filter(({ client_id }) => client_id === row.client_id),
          deliveries: deliveries.filter(
            (d) => d.client_id === row.client_id && d.upstream_id === row.upstream_id,
          ),
          codec: context.codec,
        }),
      ]),
    );
    return laneIds.map((laneId) => claims.get(laneId));
  });
}

interface LaneRow {
  lane_id: string;
  upstream_id: string;
  client_id: string;
  epoch: string;
  position: string;
  tail: string;
  failures: number;
  taken_over: boolean;
}

async function claimRows(
  trx: Transaction<Database>,
  tenantId: string,
  laneIds: string[],
  { owner, leaseMs }: ClaimContext,
): Promise<LaneRow[]> {
  const { rows } = await sql<LaneRow>`
    with free as (
      select lane_id, lease_until is not null as taken_over from lane
      where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[])
        and due_at <= clock_timestamp() and (lease_until is null or lease_until <= clock_timestamp())
      order by lane_id for update
    )
    update lane set epoch = lane.epoch + 1, owner = ${owner},
      lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
    from free
    where lane.tenant_id = ${tenantId} and lane.lane_id = free.lane_id
    returning lane.lane_id, lane.upstream_id, lane.client_id, lane.epoch, lane.position, lane.tail, lane.failures,
      free.taken_over`.execute(trx);
  return rows;
}

interface BlockRow extends Omit<Author, "userId" | "requestId"> {
  client_id: string;
  last_seq: string;
  user_id: string;
  request_id: string;
  key_id: string;
  payload: Buffer;
}

async function readBlocks(
  trx: Transaction<Database>,
  tenantId: string,
  lanes: LaneRow[],
  sliceBytesMax: number,
): Promise<BlockRow[]> {
  if (lanes.length === 0) return [];
  const { rows } = await sql<BlockRow>`
    select b.client_id, b.last_seq, b.user_id, b.scopes, b.roles, b.request_id, b.key_id, b.payload
    from unnest(${lanes.map((lane) => lane.client_id)}::uuid[], ${lanes.map(({ position }) => position)}::bigint[])
      as l (client_id, position)
    cross join lateral (
      select near.last_seq, sum(near.bytes) over (order by near.last_seq) - near.bytes as bytes_before
      from (
        select last_seq, octet_length(payload) as bytes from inbox_block
        where tenant_id = ${tenantId} and client_id = l.client_id and last_seq > l.position
        order by last_seq limit 50
      ) near
    ) upto
    join inbox_block b
      on b.tenant_id = ${tenantId} and b.client_id = l.client_id and b.last_seq = upto.last_seq
    where upto.bytes_before < ${sliceBytesMax}
    order by b.client_id, b.last_seq`.execute(trx);
  return rows;
}

interface DeliveryRow {
  upstream_id: string;
  mutation_id: string;
  client_id: string;
  seq: string;
  state: DeliveryState;
  record_key: string;
  refers_to: string[];
  blocked_by: string | null;
  possibly_sent: boolean;
  first_sent_at: Date | null;
  last_sent_at: Date | null;
  attempts: number;
}

async function readDeliveries(
  trx: Transaction<Database>,
  tenantId: string,
  clientIds: string[],
): Promise<DeliveryRow[]> {
  const { rows } = await sql<DeliveryRow>`
    select upstream_id, mutation_id, client_id, seq, state, record_key, refers_to, blocked_by, possibly_sent, first_sent_at,
      last_sent_at, attempts
    from delivery where tenant_id = ${tenantId} and client_id = any(${clientIds}::uuid[])
    order by client_id, seq`.execute(trx);
  return rows;
}

function toClaim(
  tenantId: string,
  row: LaneRow,
  loaded: { leaseUntil: number; blocks: BlockRow[]; deliveries: DeliveryRow[]; codec: PayloadCodec },
): Claim {
  const position = Number(row.position);
  return {
    tenantId,
    laneId: row.lane_id,
    upstreamId: row.upstream_id,
    clientId: row.client_id,
    epoch: Number(row.epoch),
    position,
    failures: row.failures,
    takenOver: row.taken_over,
    leaseUntil: loaded.leaseUntil,
    entries: loaded.blocks.flatMap((block) => toEntries(block, position, loaded.codec)),
    more: Number(row.tail) > Number(loaded.blocks.at(-1)?.last_seq ?? row.tail),
    deliveries: loaded.deliveries.map(toOpenDelivery),
  };
}

function toEntries(block: BlockRow, position: number, codec: PayloadCodec): ClaimedEntry[] {
  const { user_id: userId, scopes, roles, request_id: requestId } = block;
  const author = { userId, scopes, roles, requestId };
  return decodeBlock(codec.decode(block.key_id, block.payload), position).map((entry) => ({
    ...entry,
    author,
  }));
}

function toOpenDelivery(row: DeliveryRow): OpenDelivery {
  return {
    mutationId: row.mutation_id,
    seq: Number(row.seq),
    state: row.state,
    recordKey: row.record_key,
    refersTo: row.refers_to,
    blockedBy: row.blocked_by,
    possiblySent: row.possibly_sent,
    firstSentAt: row.first_sent_at,
    lastSentAt: row.last_sent_at,
    attempts: row.attempts,
  };
}

/**
 * Prolongs the lease. Resolves with its new end on the monotonic clock, or undefined when the lane is no longer ours:
 * the caller stops at once and writes nothing.
 */
export async function renewLease(
  db: Kysely<Database>,
  { tenantId, laneId, epoch }: Pick<Claim, "tenantId" | "laneId" | "epoch">,
  leaseMs: number,
): Promise<number | undefined> {
  const startedAt = performance.now();
  const { numAffectedRows } = await inTenant(db, tenantId, (trx) =>
    sql`
      update lane set lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
      where tenant_id = ${tenantId} and lane_id = ${laneId} and epoch = ${epoch} and lease_until is not null`.execute(
      trx,
    ),
  );
  return numAffectedRows === 1n ? startedAt + leaseMs : undefined;
}
