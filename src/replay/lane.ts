import { sql, type Kysely, type Transaction } from "kysely";

import { decodeBlock, type LogEntry } from "../inbox/block.ts";
import type { Mutation } from "../inbox/mutation.ts";
import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, DeliveryState } from "../platform/schema.ts";
import { readOpenCommands, type OpenCommand } from "./command.ts";
import { readFollowed, toFollowed, type FollowedRow } from "./shadows/log.ts";

/** The right to drain a lane, for as long as the lease lasts, under one epoch. */
export interface Claim {
  tenantId: string;
  laneId: string;
  upstreamId: string;
  /** Whose log it is; of a shadow's lane, its own ID. */
  clientId: string;
  epoch: number;
  position: number;
  /** Failures in a row of the mutation at the head. */
  failures: number;
  /** The last owner never released it: the mutation at the head may have been sent, between these times. */
  takenOver: SentBetween | undefined;
  /** When the database was last recovered after it had been put back to an earlier moment. */
  recoveredAt: Date | undefined;
  /** The database's clock, read at a moment of the monotonic one. */
  clock: { databaseMs: number; monotonicMs: number };
  /** On the monotonic clock (`performance.now()`), never later than the lease on the database's clock. */
  leaseUntil: number;
  /** The log after the position, as far as one slice reads it. */
  blocks: BlockRow[];
  /** The same of a shadow's lane. */
  followed: FollowedRow[];
  /** The client's mutations that did not go straight through, in order. */
  deliveries: OpenDelivery[];
  /** What operators want done about them, in the order in which they said so. */
  commands: OpenCommand[];
}

/** On the database's clock. */
export interface SentBetween {
  from: Date;
  until: Date;
}

/** The lane waits for its time; `dueInMs` is how long. */
export interface NotDue {
  dueInMs: number;
}

/** A place in the log with what ingest stored beside it. */
export type ClaimedEntry = (LogEntry & { author: Author }) | FollowedEntry;

/** A place in the log of what the primary took, or of what a shadow is seeded with. */
export interface FollowedEntry {
  /** What the mutation changed, with its position in this log as its seq and the server ID as its record ID. */
  mutation: Mutation;
  /** Who made it; nobody is named by an empty user ID. */
  author: Author;
  change: {
    /** The UUID by which the record can be looked up in the shadow: its temp ID, or one of ours. */
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

/** Who made a batch, as its token said it. Nobody in particular has an empty user ID. */
export interface Author {
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
  receivedAt: Date;
}

export interface OpenDelivery {
  mutationId: string;
  seq: number;
  state: DeliveryState;
  recordKey: string;
  refersTo: string[];
  blockedBy: string | null;
  possiblySent: boolean;
  /** Nothing speaks for it but a recovery: calls that were made before it left no trace. */
  isAssumed: boolean;
  /** It was sent before, so the rules have allowed it, and what they say of its effect does not matter. */
  wasAllowed: boolean;
  firstSentAt: Date | null;
  lastSentAt: Date | null;
  attempts: number;
  /** An operator has taken the responsibility for what was sent before: it counts as if nothing had been. */
  isReset?: boolean;
}

export interface ClaimContext {
  owner: string;
  leaseMs: number;
  /** How much of a log one slice reads at once; a single larger block is read all the same. */
  sliceBytesMax: number;
  /** Whose lanes: another's are never claimed. */
  role: "primary" | "shadow";
}

/**
 * Claims lanes of one tenant for draining and loads what a slice needs of each, in one transaction. A lane that is
 * someone else's, or has nothing to do, gives undefined; so does the repeat of one that is asked for twice.
 *
 * Only the database's clock decides. The result is in the order of `laneIds`.
 */
export async function claimLanes(
  db: Kysely<Database>,
  tenantId: string,
  laneIds: string[],
  context: ClaimContext,
): Promise<(Claim | NotDue | undefined)[]> {
  const startedAt = performance.now();
  const found = await inTenant(db, tenantId, async (trx) => {
    const claimed = await claimRows(trx, tenantId, laneIds, context);
    const clientIds = claimed.map(({ client_id }) => client_id);
    const ownIds = claimed.map(({ lane_id }) => lane_id);
    const [blocks, followed, deliveries, commands, notDue] = await Promise.all([
      context.role === "primary" ? readBlocks(trx, tenantId, claimed, context.sliceBytesMax) : [],
      context.role === "shadow" ? readFollowed(trx, tenantId, claimed, context.sliceBytesMax) : [],
      readDeliveries(trx, tenantId, clientIds),
      readOpenCommands(trx, tenantId, ownIds),
      claimed.length < laneIds.length ? readNotDue(trx, tenantId, laneIds) : new Map<string, NotDue>(),
    ]);
    return { claimed, blocks, followed, deliveries, commands, notDue };
  });
  const results = new Map<string, Claim | NotDue>(found.notDue);
  for (const row of found.claimed) {
    const loaded = {
      blocks: found.blocks.filter(({ client_id }) => client_id === row.client_id),
      followed: found.followed.filter(({ lane_id }) => lane_id === row.lane_id),
      deliveries: found.deliveries.filter(
        (d) => d.client_id === row.client_id && d.upstream_id === row.upstream_id,
      ),
      commands: found.commands.filter(({ laneId }) => laneId === row.lane_id),
    };
    results.set(row.lane_id, toClaim(tenantId, row, loaded, context, startedAt));
  }
  // Two owners in one process would share an epoch, which could no longer tell them apart.
  return laneIds.map((laneId, index) =>
    laneIds.indexOf(laneId) === index ? results.get(laneId) : undefined,
  );
}

interface LaneRow {
  lane_id: string;
  upstream_id: string;
  client_id: string;
  epoch: string;
  position: string;
  failures: number;
  /** When the lease of an owner that never gave the lane back ended. */
  lease_ended_at: Date | null;
  recovered_at: Date | null;
  now: Date;
}

/**
 * The database is the one that it is served as. One that was put back to an earlier moment is not, until it was
 * recovered.
 */
export const servedHere = sql`(select served_as is null or served_as = database_identity() from installation)`;

/** What was given out after the earlier moment was forgotten: no epoch after a recovery is one that was given out before. */
const epochOfRecovery = sql`extract(epoch from installation.recovered_at)::bigint << 20`;

async function claimRows(
  trx: Transaction<Database>,
  tenantId: string,
  laneIds: string[],
  { owner, leaseMs, role }: ClaimContext,
): Promise<LaneRow[]> {
  const isShadow = role === "shadow";
  const { rows } = await sql<LaneRow>`
    with free as (
      select lane_id, lease_until as lease_ended_at from lane
      where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[])
        and (partition is not null) = ${isShadow}
        and (due_at <= clock_timestamp() or (due_at is null and ${isShadow}))
        and (lease_until is null or lease_until <= clock_timestamp())
        and ${servedHere}
      order by lane_id for update
    )
    update lane set epoch = greatest(lane.epoch + 1, ${epochOfRecovery}), owner = ${owner}, aside = false,
      look_again = false,
      due_at = coalesce(lane.due_at, clock_timestamp()),
      lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
    from free, installation
    where lane.tenant_id = ${tenantId} and lane.lane_id = free.lane_id
    returning lane.lane_id, lane.upstream_id, coalesce(lane.client_id, lane.lane_id::uuid) as client_id, lane.epoch, lane.position, lane.failures,
      free.lease_ended_at, installation.recovered_at, clock_timestamp() as now`.execute(trx);
  return rows;
}

/** The lanes whose time has not come: a job that was woken early, or lost its delay, comes back then. */
async function readNotDue(
  trx: Transaction<Database>,
  tenantId: string,
  laneIds: string[],
): Promise<Map<string, NotDue>> {
  const { rows } = await sql<{ lane_id: string; due_in_ms: number }>`
    select lane_id, extract(epoch from due_at - clock_timestamp())::float8 * 1000 as due_in_ms from lane
    where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[]) and due_at > clock_timestamp()
      and (lease_until is null or lease_until <= clock_timestamp())`.execute(trx);
  return new Map(rows.map((row) => [row.lane_id, { dueInMs: Math.ceil(row.due_in_ms) }]));
}

export interface BlockRow extends Omit<Author, "userId" | "requestId" | "receivedAt"> {
  client_id: string;
  last_seq: string;
  user_id: string;
  request_id: string;
  received_at: Date;
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
    select b.client_id, b.last_seq, b.user_id, b.scopes, b.roles, b.request_id, b.received_at, b.key_id, b.payload
    from unnest(${lanes.map((lane) => lane.client_id)}::uuid[], ${lanes.map(({ position }) => position)}::bigint[])
      as l (client_id, position)
    cross join lateral (
      select near.*, sum(octet_length(payload)) over (order by last_seq) - octet_length(payload) as bytes_before
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
  loaded: {
    blocks: BlockRow[];
    followed: FollowedRow[];
    deliveries: DeliveryRow[];
    commands: OpenCommand[];
  },
  { leaseMs }: ClaimContext,
  startedAt: number,
): Claim {
  return {
    tenantId,
    laneId: row.lane_id,
    upstreamId: row.upstream_id,
    clientId: row.client_id,
    epoch: Number(row.epoch),
    position: Number(row.position),
    failures: row.failures,
    takenOver: row.lease_ended_at === null ? undefined : sentBetween(row.lease_ended_at, leaseMs),
    recoveredAt: row.recovered_at ?? undefined,
    clock: { databaseMs: row.now.getTime(), monotonicMs: performance.now() },
    leaseUntil: startedAt + leaseMs,
    blocks: loaded.blocks,
    followed: loaded.followed,
    deliveries: loaded.deliveries.map(toOpenDelivery),
    commands: loaded.commands,
  };
}

/**
 * No call starts after the lease; and an attempt that its last renewal found under way was not much older than that: a
 * lease spans several calls.
 */
function sentBetween(leaseEndedAt: Date, leaseMs: number): SentBetween {
  return { from: new Date(leaseEndedAt.getTime() - 3 * leaseMs), until: leaseEndedAt };
}

/** What a claim has to replay, in order. @throws when a block can't be decoded; that is one lane's trouble. */
export function entriesOf({ blocks, followed, position }: Claim, codec: PayloadCodec): ClaimedEntry[] {
  if (followed.length > 0) return toFollowed(followed, codec);
  return blocks.flatMap((block) => {
    const { text, author } = openBlock(block, codec);
    return decodeBlock(text, position).map((entry) => ({ ...entry, author }));
  });
}

/** A block's text, and who made it. */
export interface OpenBlock {
  text: string;
  author: Author;
}

function openBlock(block: BlockRow, codec: PayloadCodec): OpenBlock {
  const { user_id: userId, scopes, roles, request_id: requestId, received_at: receivedAt } = block;
  const author = { userId, scopes, roles, requestId, receivedAt };
  return { text: codec.decode(block.key_id, block.payload), author };
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
      select b.*, sum(octet_length(b.payload)) over (order by b.last_seq) - octet_length(b.payload) as bytes_before
      from wanted cross join lateral (
        select * from inbox_block
        where tenant_id = ${tenantId} and client_id = ${clientId} and last_seq = wanted.last_seq limit 1
      ) b
    ) near
    where bytes_before < ${bytesMax} order by last_seq`.execute(trx);
  return rows.map((row) => openBlock(row, codec));
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
    isAssumed: false,
    wasAllowed: row.possibly_sent,
    firstSentAt: row.first_sent_at,
    lastSentAt: row.last_sent_at,
    attempts: row.attempts,
  };
}

type Owned = Pick<Claim, "laneId" | "epoch">;

/**
 * Prolongs leases. Resolves with the lanes that are still ours: the owner of any other stops at once and writes nothing.
 */
export async function renewLeases(
  db: Kysely<Database>,
  tenantId: string,
  lanes: Owned[],
  leaseMs: number,
): Promise<Set<string>> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string }>`
      with ours as (
        select l.lane_id
        from unnest(${lanes.map(({ laneId }) => laneId)}::text[], ${lanes.map(({ epoch }) => epoch)}::bigint[])
          as owned (lane_id, epoch)
        join lane l on l.tenant_id = ${tenantId} and l.lane_id = owned.lane_id and l.epoch = owned.epoch
          and l.lease_until is not null
        where ${servedHere}
        order by l.lane_id for update of l
      )
      update lane set lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
      from ours where lane.tenant_id = ${tenantId} and lane.lane_id = ours.lane_id
      returning lane.lane_id`.execute(trx),
  );
  return new Set(rows.map((row) => row.lane_id));
}

/**
 * Gives up a lane after a failure that left its head unclear: it is due after a time, and whoever claims it then takes
 * it over.
 */
export async function abandonLane(
  db: Kysely<Database>,
  { tenantId, laneId, epoch }: Owned & Pick<Claim, "tenantId">,
  dueInMs: number,
): Promise<void> {
  await inTenant(db, tenantId, (trx) =>
    sql`
      update lane set failures = failures + 1, owner = null, lease_until = clock_timestamp(),
        due_at = case when look_again then clock_timestamp()
          else clock_timestamp() + ${dueInMs}::integer * interval '1 millisecond' end
      where tenant_id = ${tenantId} and lane_id = ${laneId} and epoch = ${epoch} and lease_until is not null`.execute(
      trx,
    ),
  );
}
