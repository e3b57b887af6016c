import type { PhoneDb } from "./phone-db.ts";
import type { Edit, RecordChange } from "./protocol.ts";

/** A record as the user sees it: as the server holds it, with what this phone has not heard back about on top. */
export interface LocalRecord {
  id: string;
  version: string | null;
  data: Record<string, unknown>;
  isPending: boolean;
}

interface RecordRow {
  id: string;
  version: string;
  data: string;
}

/** The server ID of a temp ID once it is known; anything else stays as it is. Temp IDs are never rewritten elsewhere. */
export function serverIdOf(db: PhoneDb, id: string): string {
  const sql = "select server_id from id_map where temp_id = ?";
  return db.rows<{ server_id: string }>(sql, id.toLowerCase())[0]?.server_id ?? id;
}

export function mapId(db: PhoneDb, tempId: string, serverId: string): void {
  db.run("insert or replace into id_map values (?, ?)", tempId.toLowerCase(), serverId);
}

/** The version of the record that the user looks at; null when the server has not sent it yet. */
export function versionSeen(db: PhoneDb, { entity, recordId }: Edit): string | null {
  const sql = "select version from record where entity = ? and id = ?";
  return db.rows<RecordRow>(sql, entity, serverIdOf(db, recordId))[0]?.version ?? null;
}

/** Takes over a record as the feed tells it. */
export function putRecord(db: PhoneDb, change: RecordChange): void {
  const { entity, id } = change;
  db.run("delete from record where entity = ? and id = ?", entity, id);
  if (change.type !== "upsert") return;
  db.run("insert into record values (?, ?, ?, ?)", entity, id, change.version, JSON.stringify(change.data));
  if (change.tempId) mapId(db, change.tempId, id);
}

/** The cursor is no good any more: everything will be read anew. Until then the user sees what there was. */
export function dropCursor(db: PhoneDb): void {
  db.run("update client set cursor = null");
}

/** The records of an entity as the user sees them. @param edits those without a final result, oldest first */
export function viewOf(db: PhoneDb, entity: string, edits: Edit[]): LocalRecord[] {
  const view = new Map<string, LocalRecord>();
  for (const { id, version, data } of db.rows<RecordRow>("select * from record where entity = ?", entity)) {
    view.set(id, { id, version, data: JSON.parse(data) as LocalRecord["data"], isPending: false });
  }
  for (const edit of edits.filter((one) => one.entity === entity)) {
    const id = serverIdOf(db, edit.recordId);
    const before = view.get(id);
    const data = edit.op === "create" ? edit.data : mergePatch(before?.data, edit.data);
    if (edit.op === "delete") view.delete(id);
    else if (isObject(data)) view.set(id, { id, version: before?.version ?? null, data, isPending: true });
  }
  return [...view.values()];
}

/** RFC 7396, as the server applies an update. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged: Record<string, unknown> = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key], value);
  }
  return merged;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
