import type { Kysely, Transaction } from "kysely";

import type { Announce } from "../change-feed/announce.ts";
import {
  NotLogged,
  RecordMoved,
  takePositions,
  type FeedEntry,
  type OutcomeEntry,
  type RecordWrite,
} from "../change-feed/write.ts";
import { insertMappings, type Mapping } from "../id-map/id-map.ts";
import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { lockRecords, recordKey, type StoredRecord } from "../records/record.ts";
import { writeAttempts, type AttemptWrite } from "./attempt.ts";
import { finishCommands, type CommandResult } from "./command.ts";
import {
  readWaitingLanes,
  writeDeliveries,
  type DeliveryWrite,
  type Ended,
  type SettledDelivery,
} from "./delivery.ts";
import { lockLanes, moveLanes, type LaneMove, type LaneState } from "./move-lanes.ts";
import { readEnded, settleKeys, type Outcome, type SettledOutcome } from "./outcome.ts";
import { releaseRecords, type RecordClaim } from "./record-claim.ts";
import { referenceOf, writeShadowRecords, type ShadowRecordWrite } from "./shadows/records.ts";

/** What one lane wants to have written: at most one mutation's outcome, and where the lane stands after it. */
export interface LaneCommit extends LaneMove {
  clientId: string;
  /** Where the lane stands before. */
  from: number;
  outcome?: Outcome | undefined;
  delivery?: DeliveryWrite | SettledDelivery | undefined;
  record?: RecordWrite | undefined;
  mapping?: Mapping | undefined;
  /** What it was that led here, if anything was tried. */
  attempt?: AttemptWrite | undefined;
  /** What a shadow calls the record that it has followed. */
  follow?: ShadowRecordWrite | undefined;
  /** The claim on a record that it gives back. */
  recordClaim?: RecordClaim | undefined;
  /** The operators' commands that it carries out. */
  commands?: CommandResult[] | undefined;
}

export type CommitResult =
  /** `unblocked`: lanes that waited for this mutation. `dueInMs`: when a lane that was released is due. */
  | { kind: "done"; leaseUntil: number; dueInMs: number | undefined; unblocked: string[] }
  /** The lane is no longer ours; nothing of it was written. */
  | { kind: "stale" }
  /** Somebody else wrote the record since the call began; nothing was written. Read it again, then commit. */
  | { kind: "moved" };

export interface CommitContext {
  codec: PayloadCodec;
  leaseMs: number;
  /** Who drains these lanes. */
  owner: string;
  /** Whether the tenant has a shadow, as far as is known: the first commit that finds one says so to the others. */
  shadows: { areKnown: boolean };
  announce: Announce;
}

/**
 * Writes the outcomes of many lanes of one tenant in one transaction. A lane with a stale epoch, or whose record has
 * moved, is left out and the others go on; what a stale one had tried is kept as evidence. When it is not known whether an earlier try was committed, it may be called
 * again with the same: what was written then is not written twice.
 *
 * Locks are taken in one order: lanes, records, deliveries, keys, id map, counter; each set sorted by its key, or such
 * that only the lane's owner takes it. (What shadows call records is the last kind. Whoever claims records locks nothing
 * else.)
 */
export async function commitLanes(
  db: Kysely<Database>,
  tenantId: string,
  commits: LaneCommit[],
  context: CommitContext,
): Promise<CommitResult[]> {
  for (let tries = 1; ; tries++) {
    try {
      const { results, audiences } = await inTenant(db, tenantId, (trx) =>
        commitIn(trx, tenantId, commits, context),
      );
      context.announce(tenantId, audiences);
      return results;
    } catch (error) {
      if (error instanceof NotLogged) context.shadows.areKnown = true;
      // Next time the record that has appeared is seen and locked.
      else if (!(error instanceof RecordMoved) || tries === 3) throw error;
    }
  }
}

interface Committed {
  results: CommitResult[];
  /** Those that the feed has something for. */
  audiences: string[];
}

async function commitIn(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
  context: CommitContext,
): Promise<Committed> {
  const startedAt = performance.now();
  const written = commits.flatMap(({ record }) => record ?? []);
  const standing = commits.flatMap(({ from, position, outcome }) =>
    from === position && outcome?.isNew ? [outcome.mutationId] : [],
  );
  const [lanes, records, ended] = await Promise.all([
    lockLanes(trx, tenantId, commits),
    lockRecords(trx, tenantId, written),
    readEnded(trx, tenantId, standing),
  ]);
  const { writable, results } = sortOut(commits, { lanes, records, ended }, startedAt + context.leaseMs);
  const tried = commits.flatMap((commit, index) => attemptOf(commit, results[index]));
  const attempts = writeAttempts(trx, tenantId, tried, context);
  if (writable.length === 0) {
    await attempts;
    return { results, audiences: [] };
  }
  const [{ unblocked, dueInMs, audiences }] = await Promise.all([
    write(trx, tenantId, writable, records, context),
    attempts,
  ]);
  const told = results.map((result, index) => {
    const commit = commits[index]!;
    if (result.kind !== "done") return result;
    return {
      ...result,
      dueInMs: dueInMs.get(commit.laneId) ?? result.dueInMs,
      unblocked: [...new Set(endedBy(tenantId, commit).flatMap(({ id }) => unblocked.get(id) ?? []))],
    };
  });
  return { results: told, audiences };
}

/** An answer that came to an owner without its lane is no outcome; yet the upstream gave it. */
function attemptOf({ attempt, outcome }: LaneCommit, result: CommitResult | undefined): AttemptWrite[] {
  if (!attempt || result?.kind === "moved") return [];
  if (result?.kind !== "stale") return [attempt];
  return [{ ...attempt, disposition: "stale", recordId: outcome?.recordId?.replaceAll("\0", "") }];
}

interface Found {
  lanes: Map<string, LaneState>;
  records: Map<string, StoredRecord>;
  /** Outcomes that an earlier try has written. */
  ended: ReadonlySet<string>;
}

function sortOut(
  commits: LaneCommit[],
  { lanes, records, ended }: Found,
  leaseUntil: number,
): { writable: LaneCommit[]; results: CommitResult[] } {
  const writable: LaneCommit[] = [];
  const taken = new Set<string>();
  const results = commits.map((commit): CommitResult => {
    const lane = lanes.get(commit.laneId);
    if (!lane) return { kind: "stale" };
    const done = { kind: "done" as const, leaseUntil, dueInMs: undefined, unblocked: [] };
    // Only its owner moves or releases a lane: our own earlier try did, though its answer was lost.
    if (lane.isReleased) return { ...done, dueInMs: lane.tail > lane.position ? 0 : undefined };
    if (lane.position !== commit.from || ended.has(commit.outcome?.mutationId ?? "")) return done;
    const key = commit.record && recordKey(commit.record);
    const stored = key === undefined ? undefined : records.get(key);
    if (commit.record && key !== undefined) {
      const position = stored?.feedPosition ?? 0;
      if (position !== commit.record.begunAt || taken.has(key)) return { kind: "moved" };
      taken.add(key);
    }
    writable.push(commit);
    return done;
  });
  return { writable, results };
}

interface Written {
  /** By mutation, the lanes that waited for it. */
  unblocked: Map<string, string[]>;
  /** By lane, of those that were released. */
  dueInMs: Map<string, number | undefined>;
  audiences: string[];
}

/** The statements are sent without waiting for each other; the connection runs them in this order. */
async function write(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
  records: Map<string, StoredRecord>,
  { codec, leaseMs, shadows }: CommitContext,
): Promise<Written> {
  const ended = commits.flatMap((commit) => endedBy(tenantId, commit));
  const deliveries = commits.flatMap(({ delivery }) => delivery ?? []);
  const mappings = commits.flatMap(({ mapping }) => mapping ?? []);
  const follows = commits.flatMap(({ follow }) => follow ?? []);
  const entries = commits.flatMap(toFeedEntries);
  const [, , unblocked, dueInMs, , , , audiences] = await Promise.all([
    Promise.all([
      writeDeliveries(trx, tenantId, deliveries, codec),
      finishCommands(
        trx,
        tenantId,
        commits.flatMap(({ commands }) => commands ?? []),
      ),
    ]),
    settleKeys(trx, tenantId, commits.flatMap(toSettled(records))),
    // After the keys: a lane that looked at one of them before, and found it open, has written by now that it waits.
    readWaitingLanes(trx, tenantId, ended),
    moveLanes(trx, tenantId, commits, leaseMs),
    releaseRecords(
      trx,
      tenantId,
      commits.flatMap(({ recordClaim }) => recordClaim ?? []),
    ),
    insertMappings(trx, tenantId, mappings),
    writeShadowRecords(trx, tenantId, follows),
    takePositions(trx, tenantId, entries, records, { codec, isFollowed: shadows.areKnown }),
  ]);
  return { unblocked, dueInMs, audiences };
}

/** What others may have waited for: a mutation, or in a shadow a record, or what was parked or held there. */
function endedBy(tenantId: string, { outcome, follow, delivery, clientId }: LaneCommit): Ended[] {
  const ids = [
    ...(outcome?.isNew ? [outcome.mutationId] : []),
    ...(follow ? [referenceOf(tenantId, follow)] : []),
    ...(delivery && "settled" in delivery ? [delivery.settled] : []),
  ];
  return ids.map((id) => ({ id, clientId }));
}

function toFeedEntries({ record, outcome, clientId }: LaneCommit): FeedEntry[] {
  return [
    ...(record ? [{ record }] : []),
    ...(outcome ? [{ outcome: toOutcomeEntry(outcome, clientId) }] : []),
  ];
}

/** What was recorded at ingest was in the upload's answer; a client that did not get it sends again. */
function toOutcomeEntry({ mutationId, status, isNew }: Outcome, clientId: string): OutcomeEntry {
  const mustBeRead = isNew && (status === "rejected" || status === "conflict");
  return { clientId, mutationId, isParked: status === "parked", mustBeRead };
}

/** With the version that the commit gives the record. */
function toSettled(records: Map<string, StoredRecord>): (commit: LaneCommit) => SettledOutcome[] {
  return ({ record, outcome }) => {
    if (!outcome?.isNew) return [];
    const stored = record && (records.get(recordKey(record))?.version ?? 0);
    const version = stored === undefined ? (outcome.version ?? null) : stored + (record?.isKnown ? 0 : 1);
    return [{ ...outcome, version }];
  };
}
