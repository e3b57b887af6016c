import { sql, type Kysely, type Transaction } from "kysely";

import { takePositions, type FeedEntry, type RecordWrite } from "../change-feed/write.ts";
import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, FinalStatus, StoredProblem } from "../platform/schema.ts";
import { insertMappings, type Mapping } from "../id-map/id-map.ts";
import { lockRecords, recordKey, type StoredRecord } from "../records/record.ts";
import { readWaitingLanes, writeDeliveries, type DeliveryWrite } from "./delivery.ts";

/** What one lane wants to have written: at most one mutation's outcome, and where the lane stands after it. */
export interface LaneCommit {
  laneId: string;
  clientId: string;
  epoch: number;
  /** Everything up to here has been passed. */
  position: number;
  /** Failures in a row of what is now at the head. */
  failures: number;
  /**
   * Gives the lane back: `done` when the slice is over (due again at once if the log goes on), `stuck` until somebody
   * wakes it, or due after a time.
   */
  release?: "done" | "stuck" | { dueInMs: number } | undefined;
  outcome?: Outcome | undefined;
  delivery?: DeliveryWrite | { settled: string } | undefined;
  record?: RecordWrite | undefined;
  mapping?: Mapping | undefined;
}

/** What a mutation's client is told. `parked` is told too, though it is not final. */
export interface Outcome {
  mutationId: string;
  status: FinalStatus | "parked";
  /** False for what was recorded at ingest: the feed only tells it. */
  isNew: boolean;
  recordId?: string | undefined;
  /** The record's version when the commit does not write the record itself. */
  version?: number | undefined;
  problem?: StoredProblem | undefined;
}

export type CommitResult =
  /** `unblocked`: lanes that waited for one of the mutations of this transaction. */
  | { kind: "done"; leaseUntil: number; logGoesOn: boolean; unblocked: string[] }
  /** The lane is no longer ours; nothing of it was written. */
  | { kind: "stale" }
  /** Somebody else wrote the record since the call began; nothing was written. Read it again, then commit. */
  | { kind: "moved" };

export interface CommitContext {
  codec: PayloadCodec;
  leaseMs: number;
}

/**
 * Writes the outcomes of many lanes of one tenant in one transaction. A lane with a stale epoch, or whose record has
 * moved, is left out and the others go on.
 *
 * Locks are taken in one order: lanes, deliveries, id map, records, counter; each set sorted by its key.
 */
export async function commitLanes(
  db: Kysely<Database>,
  tenantId: string,
  commits: LaneCommit[],
  { codec, leaseMs }: CommitContext,
): Promise<CommitResult[]> {
  const startedAt = performance.now();
  return await inTenant(db, tenantId, async (trx) => {
    const [tails, records] = await Promise.all([
      lockLanes(trx, tenantId, commits),
      lockRecords(
        trx,
        tenantId,
        commits.flatMap(({ record }) => record ?? []),
      ),
    ]);
    const { writable, results } = sortOut(commits, tails, records, startedAt + leaseMs);
    if (writable.length === 0) return results;
    const settled = writable.flatMap(({ outcome }) => (outcome?.isNew ? [outcome.mutationId] : []));
    const [unblocked] = await Promise.all([
      readWaitingLanes(trx, tenantId, settled),
      write(trx, tenantId, writable, records, { codec, leaseMs }),
    ]);
    return results.map((result) => (result.kind === "done" ? { ...result, unblocked } : result));
  });
}

async function lockLanes(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
): Promise<Map<string, number>> {
  const { rows } = await sql<{ lane_id: string; tail: string }>`
    select l.lane_id, l.tail
    from unnest(${commits.map(({ laneId }) => laneId)}::text[], ${commits.map(({ epoch }) => epoch)}::bigint[])
      as owned (lane_id, epoch)
    join lane l on l.tenant_id = ${tenantId} and l.lane_id = owned.lane_id and l.epoch = owned.epoch
      and l.lease_until is not null
    order by l.lane_id for update of l`.execute(trx);
  return new Map(rows.map((row) => [row.lane_id, Number(row.tail)]));
}

function sortOut(
  commits: LaneCommit[],
  tails: Map<string, number>,
  records: Map<string, StoredRecord>,
  leaseUntil: number,
): { writable: LaneCommit[]; results: CommitResult[] } {
  const writable: LaneCommit[] = [];
  const taken = new Set<string>();
  const results = commits.map((commit): CommitResult => {
    const tail = tails.get(commit.laneId);
    if (tail === undefined) return { kind: "stale" };
    const key = commit.record && recordKey(commit.record);
    const stored = key === undefined ? undefined : records.get(key);
    if (commit.record && key !== undefined) {
      const position = stored?.feedPosition ?? 0;
      if (position !== commit.record.begunAt || taken.has(key)) return { kind: "moved" };
      taken.add(key);
    }
    writable.push(commit);
    return { kind: "done", leaseUntil, logGoesOn: tail > commit.position, unblocked: [] };
  });
  return { writable, results };
}

/** The statements are sent without waiting for each other; the connection runs them in this order. */
async function write(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
  records: Map<string, StoredRecord>,
  { codec, leaseMs }: CommitContext,
): Promise<void> {
  const versionOf = ({ record, outcome }: LaneCommit): number | null =>
    record ? (records.get(recordKey(record))?.version ?? 0) + 1 : (outcome?.version ?? null);
  await Promise.all([
    moveLanes(trx, tenantId, commits, leaseMs),
    writeDeliveries(
      trx,
      tenantId,
      commits.flatMap(({ delivery }) => delivery ?? []),
      codec,
    ),
    settleKeys(trx, tenantId, commits, versionOf),
    insertMappings(
      trx,
      tenantId,
      commits.flatMap(({ mapping }) => mapping ?? []),
    ),
    takePositions(
      trx,
      tenantId,
      commits.flatMap((commit) => toFeedEntries(commit)),
      records,
      codec,
    ),
  ]);
}

function toFeedEntries({ record, outcome, clientId }: LaneCommit): FeedEntry[] {
  return [
    ...(record ? [{ record }] : []),
    ...(outcome ? [{ outcome: { clientId, mutationId: outcome.mutationId } }] : []),
  ];
}

async function moveLanes(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
  leaseMs: number,
): Promise<void> {
  const releases = commits.map(({ release }) =>
    typeof release === "object" ? "later" : (release ?? "keep"),
  );
  const dueInMs = commits.map(({ release }) =>
    typeof release === "object" ? Math.ceil(release.dueInMs) : 0,
  );
  await sql`
    update lane set position = moved.position, failures = moved.failures,
      owner = case when moved.release = 'keep' then lane.owner end,
      lease_until = case when moved.release = 'keep'
        then clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond' end,
      due_at = case moved.release
        when 'keep' then lane.due_at
        when 'done' then case when lane.tail > moved.position then clock_timestamp() end
        when 'later' then clock_timestamp() + moved.due_in_ms * interval '1 millisecond'
      end
    from unnest(${commits.map(({ laneId }) => laneId)}::text[], ${commits.map(({ position }) => position)}::bigint[],
      ${commits.map(({ failures }) => failures)}::integer[], ${releases}::text[], ${dueInMs}::bigint[])
      as moved (lane_id, position, failures, release, due_in_ms)
    where lane.tenant_id = ${tenantId} and lane.lane_id = moved.lane_id`.execute(trx);
}

async function settleKeys(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneCommit[],
  versionOf: (commit: LaneCommit) => number | null,
): Promise<void> {
  const settled = commits.flatMap((commit) =>
    commit.outcome?.isNew && commit.outcome.status !== "parked"
      ? [{ ...commit.outcome, version: versionOf(commit) }]
      : [],
  );
  if (settled.length === 0) return;
  await sql`
    update mutation_key k set status = s.status, record_id = s.record_id, version = s.version, problem = s.problem,
      settled_at = now()
    from unnest(${settled.map(({ mutationId }) => mutationId)}::uuid[], ${settled.map(({ status }) => status)}::text[],
      ${settled.map(({ recordId }) => recordId ?? null)}::text[], ${settled.map(({ version }) => version)}::bigint[],
      ${settled.map(({ problem }) => (problem ? JSON.stringify(problem) : null))}::jsonb[])
      as s (mutation_id, status, record_id, version, problem)
    where k.tenant_id = ${tenantId} and k.mutation_id = s.mutation_id`.execute(trx);
}
