import { sql, type RawBuilder, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import { bigintArray, byteaArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database, FeedTable } from "../platform/schema.ts";
import { recordKey, type RecordKey, type StoredRecord } from "../records/record.ts";
import { logged, type AppliedMutation } from "./applied-log.ts";
import { clientAudience, scopeAudience } from "./audience.ts";
import { keptUnread } from "./unread.ts";

/** A record's new state. */
export interface RecordWrite extends RecordKey {
  /** The record's feed position when the call began whose answer this is; 0 for a record that was not known. */
  begunAt: number;
  /** Its version then. */
  begunVersion?: number;
  /** JSON text in the phone's shape; null when the record was deleted. */
  data: string | null;
  /** Who sees it from now on; for a deleted one, who saw it. */
  scopes: string[];
  upstreamVersion: string | null;
  /** The temp ID, a bare UUID, and the client, of a create. */
  tempId: string | null;
  createdBy: string | null;
  /** The client whose mutation this is, and the version that it was based on. */
  changedBy: string | null;
  changedBase: number | null;
  /** The record as it was known before; undefined or null for one that was not known. For those who follow the primary. */
  before?: string | null;
  /** The mutation that changed it, if it is known how. */
  mutation?: AppliedMutation;
  /**
   * The record stands so already, since somebody saw the change at the upstream before us: readers were told, and are not
   * told again. Whose change it is gets known by it.
   */
  isKnown?: boolean;
  /**
   * Only who sees it is another than before: readers are told, but its version stays, and whose change it is, so that no
   * edit of it conflicts. Those who follow the primary need not know.
   */
  isOnlyScopes?: boolean;
}

/** A record that was not known when the transaction began has been written by another since; it has to be rolled back. */
export class RecordMoved extends Error {}

/** The tenant has a shadow that follows the primary, and the changes were not logged; it has to be rolled back. */
export class NotLogged extends Error {}

export type FeedEntry = { record: RecordWrite } | { outcome: OutcomeEntry };

export interface OutcomeEntry {
  clientId: string;
  mutationId: string;
  /** It was parked: told for as long as it is, since its final outcome will have a position of its own. */
  isParked?: boolean;
  /** The user's change was not made, and no answer has said so yet: kept until the client is known to have read it. */
  mustBeRead?: boolean;
}

/**
 * Writes records and feed rows under the tenant's next positions, one for each entry that is news, in order. It takes the tenant's
 * counter, so it is the last statement before the commit: positions are commit order, and there are no gaps.
 *
 * @param locked the records as they are, locked by this transaction.
 * @param isFollowed whether the tenant has a shadow: then what is written is also logged for it.
 * @returns the audiences that were told; to be announced after the commit (`Announce`).
 * @throws {RecordMoved} when one of those that did not exist, and so could not be locked, exists by now.
 * @throws {NotLogged} when the tenant has a shadow, and `isFollowed` does not say so.
 */
export async function takePositions(
  trx: Transaction<Database>,
  tenantId: string,
  entries: FeedEntry[],
  locked: ReadonlyMap<string, StoredRecord>,
  { codec, isFollowed }: { codec: PayloadCodec; isFollowed: boolean },
): Promise<string[]> {
  if (entries.length === 0) return [];
  const { ordinals, count } = ordinalsOf(entries, isFollowed);
  const rows = entries.flatMap((entry, index) => toFeedRows(entry, ordinals[index]!, locked));
  const records = entries.flatMap((entry, index) =>
    "record" in entry ? [{ ...entry.record, ordinal: ordinals[index]! }] : [],
  );
  const forLog = records.filter(({ isOnlyScopes }) => !isOnlyScopes);
  const unread = entries.flatMap((entry, index) =>
    "outcome" in entry && entry.outcome.mustBeRead ? [{ ...entry.outcome, ordinal: ordinals[index]! }] : [],
  );
  const written = await sql<{ records: number; is_followed: boolean }>`
    with head as (
      insert into feed_head (tenant_id, position) values (${tenantId}, ${count})
      on conflict (tenant_id) do update set position = feed_head.position + excluded.position
      returning position - ${count} as base, is_followed
    ), written as materialized (${writtenRecords(records, locked, codec)}
    ), made as (${madeRecords(tenantId, codec)}
    ), moved as (${movedRecords(tenantId, codec)}
    ), changed as (
      select * from made union all select * from moved
    ), told as (
      insert into feed (tenant_id, audience, position, kind, entity, record_id, mutation_id)
      select ${tenantId}, f.audience, head.base + f.ordinal, f.kind, f.entity, f.record_id, f.mutation_id
      from head cross join unnest(
        ${bigintArray(rows.map(({ ordinal }) => ordinal))}::bigint[],
        ${textArray(rows.map(({ audience }) => audience))}::text[],
        ${textArray(rows.map(({ kind }) => kind))}::text[],
        ${textArray(rows.map(({ entity }) => entity))}::text[],
        ${textArray(rows.map(({ recordId }) => recordId))}::text[],
        ${uuidArray(rows.map(({ mutationId }) => mutationId))}::uuid[]
      ) as f (ordinal, audience, kind, entity, record_id, mutation_id)
    )${unread.length > 0 ? keptUnread(tenantId, unread) : sql``}${isFollowed && forLog.length > 0 ? logged(tenantId, forLog, codec) : sql``}
    select count(*)::integer as records, (select is_followed from head) as is_followed from changed`.execute(
    trx,
  );
  const [result] = written.rows;
  if (result?.records !== records.length) throw new RecordMoved("a record appeared meanwhile");
  if (result.is_followed && !isFollowed && forLog.length > 0) throw new NotLogged("a shadow was added");
  return [...new Set(rows.map(({ audience }) => audience))];
}

/** Which of the next positions each entry has. What readers know already needs one for the log alone. */
function ordinalsOf(entries: FeedEntry[], isFollowed: boolean): { ordinals: number[]; count: number } {
  let count = 0;
  const ordinals = entries.map((entry) => {
    const isTold = !("record" in entry && entry.record.isKnown);
    return isTold || isFollowed ? ++count : 0;
  });
  return { ordinals, count };
}

/** The records' new rows. */
function writtenRecords(
  records: (RecordWrite & { ordinal: number })[],
  locked: ReadonlyMap<string, StoredRecord>,
  codec: PayloadCodec,
): RawBuilder<unknown> {
  const versions = records.map((record) => (locked.get(recordKey(record))?.version ?? 0) + 1);
  return sql`
      select head.base + r.ordinal as feed_position, r.*
      from head cross join unnest(
        ${bigintArray(records.map(({ ordinal }) => ordinal))}::bigint[],
        ${textArray(records.map(({ entity }) => entity))}::text[],
        ${textArray(records.map(({ serverId }) => serverId))}::text[],
        ${bigintArray(versions)}::bigint[],
        ${textArray(records.map(({ scopes }) => arrayLiteral(scopes)))}::text[],
        ${textArray(records.map(({ upstreamVersion }) => upstreamVersion))}::text[],
        ${uuidArray(records.map(({ tempId }) => tempId))}::uuid[],
        ${uuidArray(records.map(({ createdBy }) => createdBy))}::uuid[],
        ${uuidArray(records.map(({ changedBy }) => changedBy))}::uuid[],
        ${bigintArray(records.map(({ changedBase }) => changedBase))}::bigint[],
        ${byteaArray(records.map(({ data }) => (data === null ? null : codec.encode(data))))}::bytea[],
        ${records.map(({ isKnown = false }) => isKnown)}::boolean[],
        ${records.map(({ isOnlyScopes = false }) => isOnlyScopes)}::boolean[]
      ) as r (ordinal, entity, server_id, version, scopes, upstream_version, temp_id, created_by, changed_by,
        changed_base, data, is_known, is_only_scopes)`;
}

/**
 * Those that were not known. One that has appeared since is left alone: its row may be locked by somebody who waits for
 * our counter.
 */
function madeRecords(tenantId: string, codec: PayloadCodec): RawBuilder<unknown> {
  return sql`
      insert into record (tenant_id, entity, server_id, version, feed_position, deleted, scopes, upstream_version,
        temp_id, created_by, changed_by, changed_base, key_id, data)
      select ${tenantId}, r.entity, r.server_id, 1, r.feed_position, r.data is null, r.scopes::text[],
        r.upstream_version, r.temp_id, r.created_by, r.changed_by, r.changed_base, ${codec.keyId}, r.data
      from written r where r.version = 1
      on conflict (tenant_id, entity, server_id) do nothing
      returning entity, server_id, temp_id`;
}

/** Those that this transaction has locked. */
function movedRecords(tenantId: string, codec: PayloadCodec): RawBuilder<unknown> {
  return sql`
      update record set version = case when r.is_known or r.is_only_scopes then record.version else r.version end,
        feed_position = case when r.is_known then record.feed_position else r.feed_position end,
        deleted = r.data is null,
        scopes = r.scopes::text[], upstream_version = r.upstream_version,
        temp_id = coalesce(r.temp_id, record.temp_id), created_by = coalesce(r.created_by, record.created_by),
        changed_by = case when r.is_only_scopes then record.changed_by else r.changed_by end,
        changed_base = case when r.is_only_scopes then record.changed_base else r.changed_base end,
        changed_at = now(), key_id = ${codec.keyId},
        data = r.data
      from written r
      where r.version > 1 and record.tenant_id = ${tenantId} and record.entity = r.entity
        and record.server_id = r.server_id and record.version = r.version - 1
      returning record.entity, record.server_id, record.temp_id`;
}

interface FeedRow {
  ordinal: number;
  audience: string;
  kind: FeedTable["kind"];
  entity: string | null;
  recordId: string | null;
  mutationId: string | null;
}

/** Readers who see the record get the change; those who only saw it before get a revoke. */
function toFeedRows(entry: FeedEntry, ordinal: number, locked: ReadonlyMap<string, StoredRecord>): FeedRow[] {
  if ("outcome" in entry) {
    const { clientId, mutationId, isParked = false } = entry.outcome;
    return [
      {
        ordinal,
        audience: clientAudience(clientId),
        kind: isParked ? "parked" : "outcome",
        entity: null,
        recordId: null,
        mutationId,
      },
    ];
  }
  const { entity, serverId, scopes, isKnown } = entry.record;
  if (isKnown) return [];
  const left = (locked.get(recordKey(entry.record))?.scopes ?? []).filter((scope) => !scopes.includes(scope));
  const row = (scope: string, kind: FeedTable["kind"]): FeedRow => ({
    ordinal,
    audience: scopeAudience(scope),
    kind,
    entity,
    recordId: serverId,
    mutationId: null,
  });
  return [...scopes.map((scope) => row(scope, "record")), ...left.map((scope) => row(scope, "revoke"))];
}

/** A Postgres array as text: arrays of arrays of different lengths can't be unnested. */
function arrayLiteral(values: string[]): string {
  return `{${values.map((value) => `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`).join(",")}}`;
}
