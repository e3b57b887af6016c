import { sql, type RawBuilder, type Transaction } from "kysely";

import type { Database } from "../../platform/schema.ts";
import { uuidOf } from "../../platform/uuid.ts";
import { recordKey, type RecordKey } from "../../records/record.ts";

/** What a shadow calls a record, and how far it has followed it. */
export interface ShadowRecord extends RecordKey {
  ownId: string;
  /** The shadow's own version. */
  version: string | null;
  /** The position in the log whose state of the record it has. */
  reached: number;
  deleted: boolean;
  /** It was seeded without some of its references. */
  isIncomplete: boolean;
}

export interface ShadowRecordWrite extends ShadowRecord {
  upstreamId: string;
  /** It may be one that the shadow held before, of which it is noted that it is taken. */
  mayBeListed: boolean;
}

/** What a record has reached that is paired, and no more: nothing was carried to it yet. */
export const pairedOnly = -1;

/**
 * Our own name, a bare UUID, for a record in the tenant's shadows. It comes from the published ID alone, which a recovery
 * finds again; a temp ID would only be known again once the client that gave it has sent its create again.
 */
export function referenceOf(tenantId: string, key: RecordKey): string {
  return uuidOf(`tidegate record ${tenantId} ${recordKey(key)}`);
}

/**
 * Writes what the shadow calls records.
 *
 * @throws what `isOwnIdTaken` recognises when another record has one of these IDs there; the transaction has to be rolled
 * back.
 */
export async function writeShadowRecords(
  trx: Transaction<Database>,
  tenantId: string,
  follows: ShadowRecordWrite[],
): Promise<void> {
  if (follows.length === 0) return;
  // An ID that one record gives up, another may have got.
  const writes = follows.toSorted((one, other) => Number(other.deleted) - Number(one.deleted));
  await sql`
    insert into shadow_record (tenant_id, upstream_id, entity, server_id, own_id, version, reached, deleted, is_incomplete)
    select ${tenantId}, w.* from unnest(${writes.map(({ upstreamId }) => upstreamId)}::text[],
      ${writes.map(({ entity }) => entity)}::text[], ${writes.map(({ serverId }) => serverId)}::text[],
      ${writes.map(({ ownId }) => ownId)}::text[], ${writes.map(({ version }) => version)}::text[],
      ${writes.map(({ reached }) => reached)}::bigint[], ${writes.map(({ deleted }) => deleted)}::boolean[],
      ${writes.map(({ isIncomplete }) => isIncomplete)}::boolean[]) as w
    on conflict (tenant_id, upstream_id, entity, server_id) do update set own_id = excluded.own_id,
      version = excluded.version, reached = excluded.reached, deleted = excluded.deleted,
      is_incomplete = excluded.is_incomplete, changed_at = now()`.execute(trx);
  await noteTaken(
    trx,
    tenantId,
    writes.filter(({ mayBeListed }) => mayBeListed),
  );
}

/** However a record came by its ID, nothing else is paired with it. */
async function noteTaken(
  trx: Transaction<Database>,
  tenantId: string,
  writes: ShadowRecordWrite[],
): Promise<void> {
  if (writes.length === 0) return;
  await takenSql(tenantId, writes).execute(trx);
}

export function takenSql(
  tenantId: string,
  writes: Pick<ShadowRecordWrite, "upstreamId" | "entity" | "serverId" | "ownId">[],
): RawBuilder<unknown> {
  const upstreamIds = writes.map(({ upstreamId }) => upstreamId);
  const entities = writes.map(({ entity }) => entity);
  const ownIds = writes.map(({ ownId }) => ownId);
  // By the arrays alone, so that whatever is believed of the table it is read by their keys.
  return sql`
    update shadow_listed l set taken_by = w.server_id
    from unnest(${upstreamIds}::text[], ${entities}::text[], ${writes.map(({ serverId }) => serverId)}::text[],
      ${ownIds}::text[]) as w (upstream_id, entity, server_id, own_id)
    where l.tenant_id = ${tenantId} and l.upstream_id = any(${upstreamIds}::text[])
      and l.entity = any(${entities}::text[]) and l.own_id = any(${ownIds}::text[])
      and l.upstream_id = w.upstream_id and l.entity = w.entity and l.own_id = w.own_id and l.taken_by is null`;
}

/** Another of the primary's records has this ID in the shadow. As Postgres says it: `shadow_record_by_own_id`. */
export function isOwnIdTaken(error: unknown): boolean {
  return error instanceof Error && "constraint" in error && error.constraint === "shadow_record_by_own_id";
}

/** What is known in a shadow of the records among `keys`, by `recordKey`. */
export async function readShadowRecords(
  trx: Transaction<Database>,
  tenantId: string,
  upstreamId: string,
  keys: RecordKey[],
): Promise<Map<string, ShadowRecord>> {
  const { rows } = await sql<{
    entity: string;
    server_id: string;
    own_id: string;
    version: string | null;
    reached: string;
    deleted: boolean;
    is_incomplete: boolean;
  }>`
    select r.entity, r.server_id, r.own_id, r.version, r.reached, r.deleted, r.is_incomplete
    from unnest(${keys.map(({ entity }) => entity)}::text[], ${keys.map(({ serverId }) => serverId)}::text[])
      as key (entity, server_id)
    join shadow_record r on r.tenant_id = ${tenantId} and r.upstream_id = ${upstreamId} and r.entity = key.entity
      and r.server_id = key.server_id`.execute(trx);
  return new Map(
    rows.map((row) => [
      `${row.entity}/${row.server_id}`,
      {
        entity: row.entity,
        serverId: row.server_id,
        ownId: row.own_id,
        version: row.version,
        reached: Number(row.reached),
        deleted: row.deleted,
        isIncomplete: row.is_incomplete,
      },
    ]),
  );
}

/** The server ID of the record that a shadow has under this ID of its own. */
export async function readServerId(
  trx: Transaction<Database>,
  tenantId: string,
  upstreamId: string,
  own: { entity: string; ownId: string },
): Promise<string | undefined> {
  const { rows } = await serverIdSql(tenantId, upstreamId, own).execute(trx);
  return rows[0]?.server_id;
}

export function serverIdSql(
  tenantId: string,
  upstreamId: string,
  { entity, ownId }: { entity: string; ownId: string },
): RawBuilder<{ server_id: string }> {
  return sql`
    select server_id from shadow_record
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity} and own_id = ${ownId}
      and not deleted`;
}
