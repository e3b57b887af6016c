import { sql } from "kysely";

import { RawJson } from "../http/raw-json.ts";
import { toTempId } from "../platform/uuid.ts";
import type { StoredRecord } from "../records/record.ts";

/** What a reader's view of a record is made of. */
export type SeenRecord = Pick<
  StoredRecord,
  "entity" | "serverId" | "version" | "deleted" | "scopes" | "data" | "tempId" | "createdBy"
>;

/** The columns of `record` that it needs, besides the payload's. */
export const seenColumns = [
  "entity",
  "server_id",
  "version",
  "deleted",
  "scopes",
  "temp_id",
  "created_by",
] as const;

/** The same and the payload, of a `record` that the query calls `r`. */
export const seen = sql.join([...seenColumns, "key_id", "data"].map((column) => sql.ref(`r.${column}`)));

export interface SeenRow {
  entity: string;
  server_id: string;
  version: number;
  deleted: boolean;
  scopes: string[];
  temp_id: string | null;
  created_by: string | null;
  data: string | null;
}

export function toSeen({ server_id, temp_id, created_by, ...row }: SeenRow): SeenRecord {
  return { ...row, serverId: server_id, tempId: temp_id, createdBy: created_by };
}

/** A record as a reader is told of it. */
export interface ShownRecord {
  entity: string;
  id: string;
  version: string;
  data: RawJson;
  /** Only for the client that created it. */
  tempId?: string;
}

/** The record for a reader who sees it; undefined when it was deleted. */
export function toShown(record: SeenRecord, clientId: string | undefined): ShownRecord | undefined {
  const { entity, serverId: id, version, deleted, data, tempId, createdBy } = record;
  if (deleted || data === null) return undefined;
  const isOwn = tempId !== null && createdBy === clientId;
  return {
    entity,
    id,
    version: String(version),
    data: new RawJson(data),
    ...(isOwn && { tempId: toTempId(tempId) }),
  };
}
