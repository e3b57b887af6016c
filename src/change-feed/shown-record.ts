import { RawJson } from "../http/raw-json.ts";
import { toTempId } from "../platform/uuid.ts";
import type { StoredRecord } from "../records/record.ts";

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
export function toShown(record: StoredRecord, clientId: string | undefined): ShownRecord | undefined {
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
