import { sql, type Transaction } from "kysely";

import { readOwners } from "../clients/client.ts";
import { readKnown, type KnownMutation } from "../inbox/results.ts";
import { toResults, type MutationResult } from "../inbox/result-view.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { readRecords, recordKey, type RecordKey, type StoredRecord } from "../records/record.ts";
import { canSee } from "../records/scopes.ts";
import { audiencesOf } from "./audience.ts";
import { readHead, type FeedHead } from "./head.ts";
import { readMovedSince } from "./moved-since.ts";
import {
  isFinal,
  putBeforeOutcome,
  toOutcomeChange,
  toRecordChange,
  type Change,
  type ChangePage,
  type FeedReader,
  type PlacedChange,
} from "./read.ts";

export interface PlacedReader extends FeedReader {
  after: number;
}

/** The client belongs to another user by now. */
export type PageTogether = ChangePage | "client-owned";

/** Of one audience; a page of many readers has at most `positionsMax` in all. */
const rowsMax = 100;
const positionsMax = 1_000;

/**
 * The pages of many readers of one tenant, as `readChanges` gives each of them, for a few statements together. Meant for
 * readers who have been told nearly everything: each audience is read once, from where the first of its readers stands.
 * One for whom that does not reach far enough gets no further, and has to read alone: no changes, `more`, and the
 * position that it had.
 *
 * @param trx one snapshot of the database for all statements.
 */
export async function readChangesTogether(
  trx: Transaction<Database>,
  tenantId: string,
  readers: PlacedReader[],
  codec: PayloadCodec,
): Promise<PageTogether[]> {
  const [head, told, owners] = await Promise.all([
    readHead(trx, tenantId),
    readTold(trx, tenantId, readers),
    readOwners(
      trx,
      tenantId,
      readers.flatMap(({ clientId }) => clientId ?? []),
    ),
  ]);
  const shared = await readShared(trx, tenantId, told, codec);
  const pages: PageTogether[] = [];
  for (const reader of readers) {
    const owner = owners.get(reader.clientId ?? "");
    if (owner !== undefined && owner !== reader.userId) pages.push("client-owned");
    else pages.push(await pageOf(trx, reader, told, shared, head));
  }
  return pages;
}

type ToldRow = FeedRow & { position: number };
type FeedRow = { audience: string } & (
  | { kind: "record" | "revoke"; entity: string; record_id: string; mutation_id: null }
  | { kind: "outcome" | "parked"; entity: null; record_id: null; mutation_id: string }
);
type OutcomeRow = Extract<ToldRow, { kind: "outcome" | "parked" }>;

interface Told {
  byAudience: Map<string, ToldRow[]>;
  /** Up to where an audience was read; those that are not here were read to their end. */
  readUpTo: Map<string, number>;
  /** Up to where all of them count, since there is more than a page in all. */
  cut: number;
}

async function readTold(
  trx: Transaction<Database>,
  tenantId: string,
  readers: PlacedReader[],
): Promise<Told> {
  const afters = new Map<string, number>();
  for (const reader of readers) {
    for (const audience of audiencesOf(reader)) {
      afters.set(audience, Math.min(reader.after, afters.get(audience) ?? Infinity));
    }
  }
  const { rows } = await sql<FeedRow & { position: string }>`
    select a.audience, f.position, f.kind, f.entity, f.record_id, f.mutation_id
    from unnest(${[...afters.keys()]}::text[], ${[...afters.values()]}::bigint[]) as a (audience, after)
    cross join lateral (
      select position, kind, entity, record_id, mutation_id from feed
      where tenant_id = ${tenantId} and audience = a.audience and position > a.after
      order by position limit ${rowsMax + 1}
    ) f`.execute(trx);
  return sortOut(rows.map((row) => ({ ...row, position: Number(row.position) })));
}

function sortOut(rows: ToldRow[]): Told {
  const byAudience = Map.groupBy(rows, ({ audience }) => audience);
  const readUpTo = new Map<string, number>();
  for (const [audience, own] of byAudience) {
    own.sort((a, b) => a.position - b.position);
    if (own.length > rowsMax) readUpTo.set(audience, own.at(-1)?.position ?? 0);
  }
  const positions = [...new Set(rows.map(({ position }) => position))].toSorted((a, b) => a - b);
  return {
    byAudience,
    readUpTo,
    cut: positions.length > positionsMax ? (positions[positionsMax - 1] ?? 0) : Infinity,
  };
}

/** What the rows name, as it stands. */
interface Shared {
  records: Map<string, StoredRecord>;
  /** By mutation, the key of the record that its outcome tells of, if that has changed since. */
  moved: Map<string, string>;
  known: Map<string, KnownMutation>;
  /** What everybody who sees a record is told of it, but for the client that made it. */
  seen: Map<StoredRecord, Change>;
  codec: PayloadCodec;
}

async function readShared(
  trx: Transaction<Database>,
  tenantId: string,
  { byAudience, cut }: Told,
  codec: PayloadCodec,
): Promise<Shared> {
  const rows = [...byAudience.values()].flat().filter(({ position }) => position <= cut);
  const outcomes = rows.filter(isOutcome);
  const ids = new Set(outcomes.map((row) => row.mutation_id));
  const final = outcomes
    .filter(isFinal)
    .map((row) => ({ mutationId: row.mutation_id, position: row.position }));
  const keys = new Map<string, RecordKey>();
  for (const row of rows) {
    if (isOutcome(row)) continue;
    const key = { entity: row.entity, serverId: row.record_id };
    keys.set(recordKey(key), key);
  }
  const [records, moved, known] = await Promise.all([
    readRecords(trx, tenantId, [...keys.values()], codec),
    readMovedSince(trx, tenantId, final, codec),
    readKnown(trx, tenantId, [...ids]),
  ]);
  return {
    records: new Map([...byKey(moved.values()), ...records]),
    moved: new Map([...moved].map(([mutationId, record]) => [mutationId, recordKey(record)])),
    known,
    seen: new Map(),
    codec,
  };
}

function byKey(records: Iterable<StoredRecord>): Map<string, StoredRecord> {
  return new Map([...records].map((record) => [recordKey(record), record]));
}

async function pageOf(
  trx: Transaction<Database>,
  reader: PlacedReader,
  { byAudience, readUpTo, cut }: Told,
  shared: Shared,
  head: FeedHead,
): Promise<ChangePage> {
  const audiences = audiencesOf(reader);
  const end = audiences.reduce((least, audience) => Math.min(least, readUpTo.get(audience) ?? Infinity), cut);
  if (end <= reader.after) return { changes: [], position: reader.after, more: true, head };
  const rows = audiences
    .flatMap((audience) => byAudience.get(audience) ?? [])
    .filter(({ position }) => position > reader.after && position <= end)
    .toSorted((a, b) => a.position - b.position);
  const results = await readResults(trx, reader, rows, shared);
  const changes = new Map<string, PlacedChange>();
  for (const row of rows) {
    const key = isOutcome(row) ? row.mutation_id : `${row.entity}/${row.record_id}`;
    if (changes.has(key)) continue;
    const change = isOutcome(row) ? toOutcomeChange(row, results.get(key)) : changeOf(key, reader, shared);
    if (!change) continue;
    const moved = shared.moved.get(key);
    const movedChange = moved === undefined ? undefined : changeOf(moved, reader, shared);
    if (moved !== undefined && movedChange) putBeforeOutcome(changes, row.position, moved, movedChange);
    changes.set(key, { position: row.position, change });
  }
  const more = end !== Infinity;
  return { changes: [...changes.values()], position: more ? end : head.position, more, head };
}

async function readResults(
  trx: Transaction<Database>,
  reader: PlacedReader,
  rows: ToldRow[],
  { known, codec }: Shared,
): Promise<Map<string, MutationResult>> {
  const own = rows.filter(isOutcome).flatMap((row) => known.get(row.mutation_id) ?? []);
  if (own.length === 0) return new Map();
  const results = await toResults(trx, reader, own, codec);
  return new Map(results.map((result) => [result.id, result]));
}

function isOutcome(row: ToldRow): row is OutcomeRow {
  return row.kind === "outcome" || row.kind === "parked";
}

/** One object for all who are told the same, so that it becomes text once. */
function changeOf(key: string, reader: FeedReader, { records, seen }: Shared): Change | undefined {
  const record = records.get(key);
  if (!record) return undefined;
  // What only this reader may be told, or may not.
  if (record.createdBy === reader.clientId || !canSee(reader, record.scopes))
    return toRecordChange(record, reader);
  const change = seen.get(record) ?? toRecordChange(record, reader);
  seen.set(record, change);
  return change;
}
