import { sql, type Kysely, type Transaction } from "kysely";

import type { Announce } from "../change-feed/announce.ts";
import { NotLogged, RecordMoved, takePositions, type RecordWrite } from "../change-feed/write.ts";
import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { lockRecords, readRecords, recordKey } from "../records/record.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { holdClaim, type InboundClaim } from "./claim.ts";
import { compare, type Comparison, type Seen } from "./compare.ts";
import { readCreatesUnderWay, readOpenCreates, writeAdopted } from "./creates-under-way.ts";
import { writeLooks, type LookLater } from "./look.ts";

export interface TakeUpDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  upstream: Upstream;
  claim: InboundClaim;
  leaseMs: number;
  /** Whether the tenant has a shadow, as far as is known. */
  shadows: { areKnown: boolean };
  /** Tells who follows the feed what was written to it. */
  announce: Announce;
}

export interface TakenUp {
  /** The records that were written. */
  written: RecordWrite[];
  /** Records that could not be mapped to the phone's shape. */
  unreadable: number;
}

/**
 * Writes down what an upstream said of records, as far as it is news, in one transaction with what the caller writes: how
 * far it has come. What has moved since the upstream was asked is looked at again.
 *
 * @param askedAt the feed's head before the upstream was asked.
 * @throws {InboundLost} when another process has taken the upstream over; nothing was written.
 */
export async function takeUp(
  deps: TakeUpDeps,
  seen: readonly Seen[],
  askedAt: number,
  also: (trx: Transaction<Database>) => Promise<unknown>,
): Promise<TakenUp> {
  for (let tries = 1; ; tries++) {
    const news = sortOut(await compareAll(deps, seen, askedAt));
    try {
      const { written, audiences } = await write(deps, news, also);
      deps.announce(deps.claim.tenantId, audiences);
      return { ...news, written };
    } catch (error) {
      if (error instanceof NotLogged) deps.shadows.areKnown = true;
      // Next time the record that has appeared is known.
      else if (!(error instanceof RecordMoved) || tries === 3) throw error;
    }
  }
}

async function compareAll(
  { db, codec, upstream, claim: { tenantId } }: TakeUpDeps,
  seen: readonly Seen[],
  askedAt: number,
): Promise<Comparison[]> {
  const { stored, open, underWay, now } = await inTenant(db, tenantId, async (trx) => {
    const known = await readRecords(trx, tenantId, [...seen], codec);
    const unknown = seen.filter((one) => one.found && !known.has(recordKey(one)));
    const [creates, busy, clock] = await Promise.all([
      readOpenCreates(
        trx,
        tenantId,
        unknown.flatMap(({ found }) => found?.tempId ?? []),
      ),
      readCreatesUnderWay(trx, tenantId, [...new Set(unknown.map(({ entity }) => entity))]),
      // That of the records' times: this process's clock may be off by hours.
      sql<{ now: Date }>`select clock_timestamp() as now`.execute(trx),
    ]);
    return { stored: known, open: creates, underWay: busy, now: clock.rows[0]!.now };
  });
  return seen.map((one) =>
    compare(one, {
      config: upstream.entity(one.entity)!,
      stored: stored.get(recordKey(one)),
      askedAt,
      openCreate: open.get(one.found?.tempId ?? ""),
      createForMs: underWay.get(one.entity),
      lagMs: upstream.config.indexLagMs,
      nowMs: now.getTime(),
    }),
  );
}

interface News {
  changes: RecordWrite[];
  looks: LookLater[];
  unreadable: number;
}

/** The same record twice, and a temp ID that two records carry, count once. */
function sortOut(comparisons: readonly Comparison[]): News {
  const changes = new Map<string, RecordWrite>();
  const tempIds = new Set<string>();
  for (const comparison of comparisons) {
    if (comparison.kind !== "changed") continue;
    const { record } = comparison;
    const isSecond = record.tempId !== null && tempIds.has(record.tempId);
    if (record.tempId !== null) tempIds.add(record.tempId);
    changes.set(recordKey(record), isSecond ? { ...record, tempId: null, createdBy: null } : record);
  }
  return {
    changes: [...changes.values()],
    looks: comparisons.flatMap((comparison) => (comparison.kind === "look" ? [comparison.look] : [])),
    unreadable: comparisons.filter(({ kind }) => kind === "unreadable").length,
  };
}

async function write(
  { db, codec, claim, leaseMs, shadows }: TakeUpDeps,
  { changes, looks }: News,
  also: (trx: Transaction<Database>) => Promise<unknown>,
): Promise<{ written: RecordWrite[]; audiences: string[] }> {
  const { tenantId } = claim;
  return await inTenant(db, tenantId, async (trx) => {
    await holdClaim(trx, claim, leaseMs);
    const locked = await lockRecords(trx, tenantId, changes);
    const positionOf = (record: RecordWrite): number => locked.get(recordKey(record))?.feedPosition ?? 0;
    const moved = changes.filter((record) => positionOf(record) !== record.begunAt);
    const current = changes.filter((record) => positionOf(record) === record.begunAt);
    const again = moved.map(({ entity, serverId }) => ({ entity, serverId, inMs: 0 }));
    const adopted = current.flatMap(({ tempId, entity, serverId }) =>
      tempId === null ? [] : [{ tempId, entity, serverId }],
    );
    await Promise.all([
      writeLooks(trx, claim, [...looks, ...again]),
      writeAdopted(trx, tenantId, adopted),
      also(trx),
    ]);
    const entries = current.map((record) => ({ record }));
    const isFollowed = shadows.areKnown;
    const audiences = await takePositions(trx, tenantId, entries, locked, { codec, isFollowed });
    return { written: current, audiences };
  });
}
