import { sql } from "kysely";

import { RecordMoved, takePositions, type RecordWrite } from "../../../src/change-feed/write.ts";
import { inTenant } from "../../../src/platform/db.ts";
import { plainCodec } from "../../../src/platform/payload-codec.ts";
import { lockRecords } from "../../../src/records/record.ts";
import { commitLanes, type LaneCommit } from "../../../src/replay/commit.ts";
import type { Outcome } from "../../../src/replay/outcome.ts";
import type { Random } from "../../faults/random.ts";
import type { Lane, World } from "./world.ts";

export interface Tenant {
  world: World;
  tenantId: string;
  scopes: string[];
  records: number;
}

/** What a commit writes of a record; its place in the feed when it was looked at decides whether it may. */
type Wanted = { serverId: string; isDeleted: boolean; scopes: string[] };

/** Who writes a record for whom nobody waits: changes that others made. */
export type WriteRecord = (tenant: Tenant, wanted: Wanted, holdMs: number, isLost: boolean) => Promise<void>;

/**
 * A worker with some lanes in hand: it takes their mutations to their outcomes, in commits of one or more, until all
 * are settled; what it has parked it settles at the end.
 */
export async function replayLanes(tenant: Tenant, lanes: Lane[], random: Random): Promise<void> {
  const open = lanes.map((lane) => ({ lane, passed: 0 }));
  const parked: { lane: Lane; at: number; mutationId: string }[] = [];
  while (open.some(({ lane, passed }) => passed < lane.mutationIds.length)) {
    const moving = open.filter(({ lane, passed }) => passed < lane.mutationIds.length && random.chance(0.7));
    const commits = moving.map((one) => {
      const mutationId = one.lane.mutationIds[one.passed]!;
      const move = { from: one.passed, position: ++one.passed };
      const isParked = random.chance(0.15);
      if (isParked) parked.push({ lane: one.lane, at: 0, mutationId });
      return { lane: one.lane, move, mutationId, isParked };
    });
    await settle(tenant, commits, random);
    await nap(random, 4);
  }
  for (const { lane, mutationId } of parked) {
    const stands = { from: lane.mutationIds.length, position: lane.mutationIds.length };
    await settle(tenant, [{ lane, move: stands, mutationId, isParked: false }], random);
  }
}

interface Settling {
  lane: Lane;
  move: { from: number; position: number };
  mutationId: string;
  isParked: boolean;
}

/** One commit, and further ones for those of its lanes whose record somebody else has written meanwhile. */
async function settle(tenant: Tenant, settling: Settling[], random: Random): Promise<void> {
  const { world, tenantId } = tenant;
  for (let left = settling; left.length > 0;) {
    const commits: LaneCommit[] = [];
    for (const one of left) commits.push(await toCommit(tenant, one, random));
    const context = {
      codec: plainCodec,
      leaseMs: 3_600_000,
      owner: "test",
      shadows: { areKnown: false },
      announce: () => undefined,
    };
    const results = await commitLanes(world.db, tenantId, commits, context).catch((error: unknown) => {
      if (error instanceof RecordMoved) return undefined;
      throw error;
    });
    if (results?.some(({ kind }) => kind === "stale")) throw new Error("a lane was lost");
    left = left.filter((_, index) => results?.[index]?.kind !== "done");
  }
}

async function toCommit(
  tenant: Tenant,
  { lane, move, mutationId, isParked }: Settling,
  random: Random,
): Promise<LaneCommit> {
  const base = { ...move, laneId: lane.clientId, clientId: lane.clientId, epoch: 1, failures: 0 };
  const outcome = (rest: Omit<Outcome, "mutationId" | "isNew">) => ({ mutationId, isNew: true, ...rest });
  if (isParked) return { ...base, outcome: outcome({ status: "parked" }) };
  const known = await lookAt(tenant, wantedRecord(tenant, random));
  const { serverId } = known.wanted;
  const chance = random.next();
  if (chance < 0.1) return { ...base, outcome: outcome({ status: "rejected", recordId: serverId }) };
  if (chance < 0.2 && known.version > 0)
    return { ...base, outcome: outcome({ status: "applied", recordId: serverId, version: known.version }) };
  const status = chance < 0.3 && known.version > 0 ? "conflict" : "applied";
  return {
    ...base,
    record: { ...toWrite(known.wanted), begunAt: known.feedPosition, changedBy: lane.clientId },
    outcome: outcome({ status, recordId: serverId }),
  };
}

function wantedRecord({ scopes, records }: Tenant, random: Random): Wanted {
  const own = scopes.filter(() => random.chance(0.3));
  return {
    serverId: String(random.between(1, records)),
    isDeleted: random.chance(0.12),
    scopes: own.length > 0 ? own : [random.pick(scopes)],
  };
}

/** A record that is not there can't be deleted; a deleted one is remembered by who saw it. */
async function lookAt({ world, tenantId }: Tenant, wanted: Wanted) {
  const [row] = await world.query<{ version: string; feed_position: string; scopes: string[] }>(
    "select version, feed_position, scopes from tidegate.record where tenant_id = $1 and server_id = $2",
    [tenantId, wanted.serverId],
  );
  const isDeleted = wanted.isDeleted && row !== undefined;
  return {
    version: Number(row?.version ?? 0),
    feedPosition: Number(row?.feed_position ?? 0),
    wanted: { ...wanted, isDeleted, scopes: isDeleted ? row.scopes : wanted.scopes },
  };
}

function toWrite({ serverId, isDeleted, scopes }: Wanted): RecordWrite {
  return {
    entity: "activity",
    serverId,
    begunAt: 0,
    data: isDeleted ? null : "{}",
    scopes,
    upstreamVersion: null,
    tempId: null,
    createdBy: null,
    changedBy: null,
    changedBase: null,
  };
}

/** Somebody whose transactions take their time, and are sometimes lost with their process just before the commit. */
export async function writeSlowly(
  tenant: Tenant,
  { write, slowWritesMax }: { write: WriteRecord; slowWritesMax: number },
  random: Random,
): Promise<void> {
  for (let left = random.between(0, slowWritesMax); left > 0; left--) {
    const { wanted } = await lookAt(tenant, wantedRecord(tenant, random));
    await write(tenant, wanted, random.pick([0, 0, 3, 20]), random.chance(0.2));
    await nap(random, 6);
  }
}

class Lost extends Error {}

export const writeInOrder: WriteRecord = async ({ world, tenantId }, wanted, holdMs, isLost) => {
  const record = toWrite(wanted);
  await inTenant(world.db, tenantId, async (trx) => {
    const locked = await lockRecords(trx, tenantId, [record]);
    await takePositions(trx, tenantId, [{ record }], locked, { codec: plainCodec, isFollowed: false });
    if (holdMs > 0) await sql`select pg_sleep(${holdMs / 1_000})`.execute(trx);
    if (isLost) throw new Lost();
  }).catch((error: unknown) => {
    if (!(error instanceof Lost) && !(error instanceof RecordMoved)) throw error;
  });
};

export async function nap(random: Random, ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, random.between(0, ms)));
}
