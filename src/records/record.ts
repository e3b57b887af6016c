import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import { textArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";

export interface RecordKey {
  entity: string;
  serverId: string;
}

/** Tidegate's copy of a record. `data` is JSON text in the phone's shape; null when the record is deleted. */
export interface StoredRecord extends RecordKey {
  version: number;
  feedPosition: number;
  deleted: boolean;
  scopes: string[];
  upstreamVersion: string | null;
  data: string | null;
  tempId: string | null;
  createdBy: string | null;
  changedBy: string | null;
  changedBase: number | null;
  /** Of records that are read for a change. */
  changedAt: Date | undefined;
}

export function recordKey({ entity, serverId }: RecordKey): string {
  return `${entity}/${serverId}`;
}

/** The records among `keys` that are known, by `recordKey`. */
export async function readRecords(
  trx: Transaction<Database>,
  tenantId: string,
  keys: RecordKey[],
  codec: PayloadCodec,
): Promise<Map<string, StoredRecord>> {
  if (keys.length === 0) return new Map();
  const { rows } = await sql<RecordRow>`
    select r.entity, r.server_id, r.version, r.feed_position, r.deleted, r.scopes, r.upstream_version, r.temp_id,
      r.created_by, r.changed_by, r.changed_base, r.changed_at, r.key_id, r.data
    from unnest(${textArray(keys.map(({ entity }) => entity))}::text[],
      ${textArray(keys.map(({ serverId }) => serverId))}::text[])
      as key (entity, server_id)
    join record r on r.tenant_id = ${tenantId} and r.entity = key.entity and r.server_id = key.server_id`.execute(
    trx,
  );
  return new Map(rows.map((row) => [`${row.entity}/${row.server_id}`, toRecord(row, codec)]));
}

/**
 * Locks the records among `keys` that exist, sorted, and returns what a write has to know of them. Their data is not
 * read.
 */
export async function lockRecords(
  trx: Transaction<Database>,
  tenantId: string,
  keys: RecordKey[],
): Promise<Map<string, StoredRecord>> {
  if (keys.length === 0) return new Map();
  const { rows } = await sql<Omit<RecordRow, "data" | "key_id">>`
    select r.entity, r.server_id, r.version, r.feed_position, r.deleted, r.scopes, r.upstream_version, r.temp_id,
      r.created_by, r.changed_by, r.changed_base
    from record r
    where r.tenant_id = ${tenantId} and (r.entity, r.server_id) in (
      select * from unnest(${textArray(keys.map(({ entity }) => entity))}::text[],
        ${textArray(keys.map(({ serverId }) => serverId))}::text[])
    )
    order by r.entity, r.server_id for update`.execute(trx);
  return new Map(
    rows.map((row) => [`${row.entity}/${row.server_id}`, toRecord({ ...row, data: null, key_id: "" })]),
  );
}

export interface RecordRow {
  entity: string;
  server_id: string;
  version: string;
  feed_position: string;
  deleted: boolean;
  scopes: string[];
  upstream_version: string | null;
  temp_id: string | null;
  created_by: string | null;
  changed_by: string | null;
  changed_base: string | null;
  changed_at?: Date;
  key_id: string;
  data: Buffer | null;
}

export function toRecord(row: RecordRow, codec?: PayloadCodec): StoredRecord {
  return {
    entity: row.entity,
    serverId: row.server_id,
    version: Number(row.version),
    feedPosition: Number(row.feed_position),
    deleted: row.deleted,
    scopes: row.scopes,
    upstreamVersion: row.upstream_version,
    data: row.data === null || !codec ? null : codec.decode(row.key_id, row.data),
    tempId: row.temp_id,
    createdBy: row.created_by,
    changedBy: row.changed_by,
    changedBase: row.changed_base === null ? null : Number(row.changed_base),
    changedAt: row.changed_at,
  };
}

/** Whether the record was made under another name than this temp ID. */
export function isAnothers(stored: StoredRecord | undefined, tempId: string): boolean {
  return stored !== undefined && stored.tempId !== null && stored.tempId !== tempId;
}
