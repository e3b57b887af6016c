import type { Kysely } from "kysely";

import type { Announce } from "../change-feed/announce.ts";
import { resolveTempIds, type TempIdState } from "../id-map/id-map.ts";
import { createBatcher, type Batched } from "../platform/batcher.ts";
import { inTenant, inTenantAtOnce } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { readRecords, recordKey, type RecordKey, type StoredRecord } from "../records/record.ts";
import { setLanesAside, takeLanesBack } from "./aside.ts";
import { writeAttempts, type AttemptWrite } from "./attempt.ts";
import { readBlocksOf, type OpenBlock } from "./blocks.ts";
import { claimLanes, type Claim, type NotDue } from "./claim.ts";
import { commitLanes, type CommitContext, type CommitResult, type LaneCommit } from "./commit.ts";
import { readDependencies, type Dependency } from "./dependencies.ts";
import { abandonLane, renewLeases } from "./leases.ts";
import {
  claimRecords,
  renewRecordClaims,
  type RecordClaim,
  type RecordClaimAsked,
  type RecordClaimed,
} from "./record-claim.ts";
import { readAbsences, readSeededBefore, type Absence, type AbsentRecord } from "./shadows/absences.ts";
import { readFollowedAt, toFollowed, type FollowedEntry } from "./shadows/log.ts";
import { readServerId, readShadowRecords, type ShadowRecord } from "./shadows/records.ts";

/**
 * The database as a tenant's lanes use it. What many lanes ask for at the same moment goes in one transaction, and one
 * commit carries the outcomes of many lanes.
 */
export interface ReplayStore {
  claim: Batched<string, Claim | NotDue | undefined>;
  /** Puts a due lane aside that nobody has in hand; false when it is not that. */
  setAside: Batched<string, boolean>;
  /** Takes lanes of the upstream back that were put aside, those that are due for longest. */
  takeBack: (upstreamId: string, limit: number) => Promise<string[]>;
  /** The blocks of a client's log that hold these mutations, which its lane has passed; as far as a turn reads. */
  readPassed: (clientId: string, seqs: number[]) => Promise<OpenBlock[]>;
  /** What stands at these positions of the log, or of the seeds, that a shadow's lane has passed; as far as a turn reads. */
  readFollowedAgain: (laneId: string, positions: number[]) => Promise<FollowedEntry[]>;
  /** What is known of temp IDs (bare UUIDs). */
  resolve: Batched<string[], Map<string, TempIdState>>;
  /** How mutations that others name in `dependsOn` ended, by id. */
  readDependencies: Batched<string[], Map<string, Dependency>>;
  readRecord: Batched<RecordKey, StoredRecord | undefined>;
  /** Claims a record before it is changed at an upstream that has no versions. */
  claimRecord: Batched<RecordClaimAsked, RecordClaimed>;
  /** Resolves with the lanes that still have their records. */
  renewRecords: (claims: RecordClaim[]) => Promise<Set<string>>;
  /** What is known of records in the shadow, by `recordKey`. */
  readShadowRecords: Batched<RecordKey[], Map<string, ShadowRecord>>;
  /** The server ID of the record that the shadow has under an ID of its own. */
  readServerId: (own: { entity: string; ownId: string }) => Promise<string | undefined>;
  /** What may still bring records that the shadow does not have, in the order given. */
  readAbsences: (absent: AbsentRecord[]) => Promise<Absence[]>;
  /** Of records, by `recordKey`, those that the shadow is seeded with before a position. */
  readSeededBefore: (asked: { keys: RecordKey[]; position: number }) => Promise<Set<string>>;
  /**
   * Writes one lane's commit with those of others. When a shared transaction fails, each lane's is tried alone, so that
   * one lane's trouble stays its own.
   */
  commit: Batched<LaneCommit, CommitResult>;
  /** Keeps an attempt that no commit has. */
  keepAttempt: (attempt: AttemptWrite) => Promise<void>;
  /** Resolves with the lanes that are still ours. */
  renew: (claims: Claim[]) => Promise<Set<string>>;
  abandon: (claim: Claim, dueInMs: number) => Promise<void>;
}

export interface ReplayStoreOptions {
  codec: PayloadCodec;
  owner: string;
  leaseMs: number;
  upstream: { id: string; role: "primary" | "shadow"; shadowIds?: readonly string[] };
  announce: Announce;
}

const sliceBytesMax = 1024 * 1024;
const itemsMax = 200;

export function createReplayStore(
  db: Kysely<Database>,
  tenantId: string,
  { codec, owner, leaseMs, upstream, announce }: ReplayStoreOptions,
): ReplayStore {
  const context = { codec, leaseMs, owner, shadows: { areKnown: false }, announce };
  const commit = createBatcher<LaneCommit, Settled>(
    (commits) => commitTogether(db, tenantId, commits, context),
    { itemsMax },
  );
  const { role, shadowIds = [] } = upstream;
  const claiming = { owner, leaseMs, sliceBytesMax, role, shadowIds };
  return {
    claim: createBatcher((laneIds) => claimLanes(db, tenantId, laneIds, claiming), { itemsMax }),
    setAside: createBatcher(
      async (laneIds) => {
        const aside = await setLanesAside(db, tenantId, laneIds);
        return laneIds.map((laneId) => aside.has(laneId));
      },
      { itemsMax },
    ),
    takeBack: (upstreamId, limit) => takeLanesBack(db, tenantId, { upstreamId, limit }),
    readPassed: (clientId, seqs) =>
      inTenant(db, tenantId, (trx) =>
        readBlocksOf(trx, tenantId, { clientId, seqs }, { codec, bytesMax: sliceBytesMax }),
      ),
    readFollowedAgain: async (laneId, positions) => {
      const rows = await inTenant(db, tenantId, (trx) =>
        readFollowedAt(trx, tenantId, { laneId, positions }, sliceBytesMax),
      );
      return toFollowed(rows, tenantId, codec);
    },
    resolve: createBatcher(
      async (lists) => {
        const states = await inTenantAtOnce(db, tenantId, (trx) =>
          resolveTempIds(trx, tenantId, [...new Set(lists.flat())]),
        );
        return lists.map(() => states);
      },
      { itemsMax },
    ),
    readDependencies: createBatcher(
      async (lists) => {
        const ended = await inTenantAtOnce(db, tenantId, (trx) =>
          readDependencies(trx, tenantId, lists.flat()),
        );
        return lists.map(() => ended);
      },
      { itemsMax },
    ),
    readRecord: createBatcher(
      async (keys) => {
        const records = await inTenantAtOnce(db, tenantId, (trx) => readRecords(trx, tenantId, keys, codec));
        return keys.map((key) => records.get(recordKey(key)));
      },
      { itemsMax },
    ),
    claimRecord: createBatcher((asked) => claimRecords(db, tenantId, asked, leaseMs), { itemsMax }),
    renewRecords: (claims) => renewRecordClaims(db, tenantId, claims, leaseMs),
    readShadowRecords: createBatcher(
      async (lists) => {
        const keys = [...new Map(lists.flat().map((key) => [recordKey(key), key])).values()];
        const records = await inTenant(db, tenantId, (trx) =>
          readShadowRecords(trx, tenantId, upstream.id, keys),
        );
        return lists.map(() => records);
      },
      { itemsMax },
    ),
    readServerId: (own) => inTenant(db, tenantId, (trx) => readServerId(trx, tenantId, upstream.id, own)),
    readAbsences: (absent) =>
      inTenant(db, tenantId, (trx) => readAbsences(trx, tenantId, upstream.id, absent)),
    readSeededBefore: (asked) =>
      inTenant(db, tenantId, (trx) => readSeededBefore(trx, tenantId, upstream.id, asked)),
    commit: async (item) => {
      const settled = await commit(item);
      if ("error" in settled) throw settled.error;
      return settled.result;
    },
    keepAttempt: (attempt) =>
      inTenant(db, tenantId, (trx) => writeAttempts(trx, tenantId, [attempt], { codec, owner })),
    renew: (claims) => renewLeases(db, tenantId, claims, leaseMs),
    abandon: (claim, dueInMs) => abandonLane(db, claim, dueInMs),
  };
}

type Settled = { result: CommitResult } | { error: unknown };

async function commitTogether(
  db: Kysely<Database>,
  tenantId: string,
  commits: LaneCommit[],
  context: CommitContext,
): Promise<Settled[]> {
  try {
    const results = await commitLanes(db, tenantId, commits, context);
    return results.map((result) => ({ result }));
  } catch (error) {
    if (commits.length === 1) return [{ error }];
    const settled: Settled[] = [];
    for (const commit of commits) settled.push(...(await commitTogether(db, tenantId, [commit], context)));
    return settled;
  }
}
