import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, FeedTable } from "../platform/schema.ts";
import { recordKey, type RecordKey, type StoredRecord } from "../records/record.ts";
import { logged, type AppliedMutation } from "./applied-log.ts";
import { clientAudience, scopeAudience } from "./audience.ts";

/** A record's new state. */
export interface RecordWrite extends RecordKey {
  /** The record's feed position when the call began whose answer this is; 0 for a record that was not known. */
  begunAt: number;
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
}

/**
 * Writes records and feed rows under the tenant's next positions, one for each entry, in order. It takes the tenant's
 * counter, so it is the last statement before the commit: positions are commit order, and there are no gaps.
 *
 * @param locked the records as they are, locked by this transaction.
 * @param isFollowed whether the tenant has a shadow: then what is written is also logged for it.
 * @throws {RecordMoved} when one of those that did not exist, and so could not be locked, exists by now.
 * @throws {NotLogged} when the tenant has a shadow, and `isFollowed` does not say so.
 */
export async function takePositions(
  trx: Transaction<Database>,
  tenantId: string,
  entries: FeedEntry[],
  locked: ReadonlyMap<string, StoredRecord>,
  { codec, isFollowed }: { codec: PayloadCodec; isFollowed: boolean },
): Promise<void> {
  if (entries.length === 0) return;
  const rows = entries.flatMap((entry, index) => toFeedRows(entry, index + 1, locked));
  const records = entries.flatMap((entry, index) =>
    "record" in entry ? [{ ...entry.record, ordinal: index + 1 }] : [],
  );
  const versions = records.map((record) => (locked.get(recordKey(record))?.version ?? 0) + 1);
  const written = await sql<{ records: number; is_followed: boolean }>`
    with head as (
      insert into feed_head (tenant_id, position) values (${tenantId}, ${entries.length})
      on conflict (tenant_id) do update set position = feed_head.position + excluded.position
      returning position - ${entries.length} as base, is_followed
    ), changed as (
      insert into record (tenant_id, entity, server_id, version, feed_position, deleted, scopes, upstream_version,
        temp_id, created_by, changed_by, changed_base, key_id, data)
      select ${tenantId}, r.entity, r.server_id, r.version, head.base + r.ordinal, r.data is null, r.scopes::text[],
        r.upstream_version, r.temp_id, r.created_by, r.changed_by, r.changed_base, ${codec.keyId}, r.data
      from head cross join unnest(
        ${records.map(({ ordinal }) => ordinal)}::integer[], ${records.map(({ entity }) => entity)}::text[],
        ${records.map(({ serverId }) => serverId)}::text[], ${versions}::bigint[],
        ${records.map(({ scopes }) => arrayLiteral(scopes))}::text[],
        ${records.map(({ upstreamVersion }) => upstreamVersion)}::text[],
        ${records.map(({ tempId }) => tempId)}::uuid[], ${records.map(({ createdBy }) => createdBy)}::uuid[],
        ${records.map(({ changedBy }) => changedBy)}::uuid[],
        ${records.map(({ changedBase }) => changedBase)}::bigint[],
        ${records.map(({ data }) => (data === null ? null : codec.encode(data)))}::bytea[]
      ) as r (ordinal, entity, server_id, version, scopes, upstream_version, temp_id, created_by, changed_by,
        changed_base, data)
      on conflict (tenant_id, entity, server_id) do update set version = excluded.version,
        feed_position = excluded.feed_position, deleted = excluded.deleted, scopes = excluded.scopes,
        upstream_version = excluded.upstream_version, temp_id = coalesce(excluded.temp_id, record.temp_id),
        created_by = coalesce(excluded.created_by, record.created_by), changed_by = excluded.changed_by,
        changed_base = excluded.changed_base, changed_at = now(), key_id = excluded.key_id, data = excluded.data
      where record.version = excluded.version - 1
      returning entity, server_id, temp_id
    ), told as (
      insert into feed (tenant_id, audience, position, kind, entity, record_id, mutation_id)
      select ${tenantId}, f.audience, head.base + f.ordinal, f.kind, f.entity, f.record_id, f.mutation_id
      from head cross join unnest(
        ${rows.map(({ ordinal }) => ordinal)}::integer[], ${rows.map(({ audience }) => audience)}::text[],
        ${rows.map(({ kind }) => kind)}::text[], ${rows.map(({ entity }) => entity)}::text[],
        ${rows.map(({ recordId }) => recordId)}::text[], ${rows.map(({ mutationId }) => mutationId)}::uuid[]
      ) as f (ordinal, audience, kind, entity, record_id, mutation_id)
    )${isFollowed && records.length > 0 ? logged(tenantId, records, codec) : sql``}
    select count(*)::integer as records, (select is_followed from head) as is_followed from changed`.execute(
    trx,
  );
  const [result] = written.rows;
  if (result?.records !== records.length) throw new RecordMoved("a record appeared meanwhile");
  if (result.is_followed && !isFollowed && records.length > 0) throw new NotLogged("a shadow was added");
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
  const { entity, serverId, scopes } = entry.record;
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
