import { sql, type Kysely, type RawBuilder, type Transaction } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { readBlocks, type BlockRow } from "./blocks.ts";
import { readOpenCommands, type OpenCommand } from "./command.ts";
import { readDeliveries, toOpenDelivery, type DeliveryRow, type OpenDelivery } from "./open-delivery.ts";
import { servedHere } from "./served-here.ts";
import { readFollowed, type FollowedRow } from "./shadows/log.ts";

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
  /**
   * When the database was last recovered after it had been put back to an earlier moment, or a shadow was added again after
   * it had been forgotten: what occurred before may have been sent without a trace.
   */
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

export interface ClaimContext {
  owner: string;
  leaseMs: number;
  /** How much of a log one slice reads at once; a single larger block is read all the same. */
  sliceBytesMax: number;
  /** Whose lanes: another's are never claimed. */
  role: "primary" | "shadow";
  /** Of a primary: the shadows that follow it. */
  shadowIds: readonly string[];
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
      readDeliveries(trx, tenantId, clientIds, context.role),
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

/** What was given out after the earlier moment was forgotten: no epoch after a recovery is one that was given out before. */
const epochOfRecovery = sql`extract(epoch from installation.recovered_at)::bigint << 20`;

async function claimRows(
  trx: Transaction<Database>,
  tenantId: string,
  laneIds: string[],
  { owner, leaseMs, role, shadowIds }: ClaimContext,
): Promise<LaneRow[]> {
  const isShadow = role === "shadow";
  const { rows } = await sql<LaneRow>`
    with free as (
      select lane_id, lease_until as lease_ended_at from lane
      where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[])
        and (partition is not null) = ${isShadow}
        and (due_at <= clock_timestamp() or (due_at is null and ${isShadow}))
        and (lease_until is null or lease_until <= clock_timestamp())
        and ${servedHere} and ${areFollowing(tenantId, shadowIds)}
      order by lane_id for update
    )
    update lane set epoch = greatest(lane.epoch + 1, ${epochOfRecovery}), owner = ${owner}, aside = false,
      look_again = false,
      due_at = coalesce(lane.due_at, clock_timestamp()),
      lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
    from free, installation
    where lane.tenant_id = ${tenantId} and lane.lane_id = free.lane_id
    returning lane.lane_id, lane.upstream_id, coalesce(lane.client_id, lane.lane_id::uuid) as client_id, lane.epoch, lane.position, lane.failures,
      free.lease_ended_at, ${isShadow ? forgottenSince(tenantId) : sql`installation.recovered_at`} as recovered_at,
      clock_timestamp() as now`.execute(trx);
  return rows;
}

/**
 * A shadow that was forgotten and has come back may hold all that had gone to it by then: as after a recovery that was
 * when it was added again.
 */
function forgottenSince(tenantId: string): RawBuilder<unknown> {
  return sql`greatest(installation.recovered_at, (
    select s.created_at from shadow s
    where s.tenant_id = ${tenantId} and s.upstream_id = lane.upstream_id and exists (
      select 1 from forgotten_shadow f where f.tenant_id = ${tenantId} and f.upstream_id = s.upstream_id
    )
  ))`;
}

/**
 * The database may have been put back to a moment before a shadow was added. What is sent again then has to be logged for
 * it, or a record that is deleted again would stay there. Unless it was forgotten since then: whoever still names it has
 * nothing to wait for.
 */
function areFollowing(tenantId: string, shadowIds: readonly string[]): RawBuilder<unknown> {
  if (shadowIds.length === 0) return sql`true`;
  return sql`(select recovered_at is null or recovered_at < now() - interval '1 day' or not exists (
    select 1 from unnest(${shadowIds}::text[]) as known (upstream_id) where not exists (
      select 1 from shadow s
      where s.tenant_id = ${tenantId} and s.upstream_id = known.upstream_id
    ) and not exists (
      select 1 from forgotten_shadow f
      where f.tenant_id = ${tenantId} and f.upstream_id = known.upstream_id and f.forgotten_at > recovered_at
    )
  ) from installation)`;
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
