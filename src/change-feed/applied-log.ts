import { createHash, randomUUID } from "node:crypto";

import { sql, type RawBuilder } from "kysely";

import { mergePatch } from "../platform/json-text.ts";
import { composePatches, onlyWhatIsIn, patchBetween } from "../platform/merge-patch.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import { recordKey, type RecordKey } from "../records/record.ts";
import type { RecordWrite } from "./write.ts";

/** The mutation that changed a record, as those who follow the primary have to know it. */
export interface AppliedMutation {
  id: string;
  op: "create" | "update" | "delete";
  userId: string;
  requestId: string;
  /** By the client's clock. */
  occurredAt: Date | null;
  /** What it changed, as its client sent it and as it was sent to the primary; undefined for a delete. */
  patch: { asMeant: string; asSent: string } | undefined;
  /** Others wrote the record meanwhile: only the record as it is read again says which came last. */
  isCrossed?: boolean;
}

export const partitions = 16;

/** The part of the log that a record's changes are in. The same in SQL: `partitionSql`. */
export function partitionOf(key: RecordKey): number {
  return (createHash("sha256").update(recordKey(key)).digest()[0] ?? 0) % partitions;
}

/** `partitionOf` of a row with `entity` and `server_id`. */
export const partitionSql = sql`get_byte(sha256(convert_to(entity || '/' || server_id, 'UTF8')), 0) % ${sql.lit(partitions)}`;

/**
 * Writes log rows under the positions that `head` has taken, for the records that `changed` has written; none while nobody
 * follows: before the shadow was added, or after it was forgotten.
 */
export function logged(
  tenantId: string,
  records: (RecordWrite & { ordinal: number })[],
  codec: PayloadCodec,
): RawBuilder<unknown> {
  const rows = records.map((record) => toRow(record, codec));
  return sql`, logged as (
    insert into applied_change (tenant_id, partition, position, change_id, entity, server_id, temp_id, op, is_foreign,
      user_id, request_id, occurred_at, key_id, patch, others, data)
    select ${tenantId}, a.partition, head.base + a.ordinal, a.change_id, a.entity, a.server_id, changed.temp_id, a.op,
      a.is_foreign, a.user_id, a.request_id, a.occurred_at, ${codec.keyId}, a.patch, a.others, a.data
    from head cross join unnest(
      ${rows.map(({ ordinal }) => ordinal)}::integer[], ${rows.map(({ partition }) => partition)}::smallint[],
      ${rows.map(({ changeId }) => changeId)}::uuid[], ${rows.map(({ entity }) => entity)}::text[],
      ${rows.map(({ serverId }) => serverId)}::text[], ${rows.map(({ op }) => op)}::text[],
      ${rows.map(({ isForeign }) => isForeign)}::boolean[], ${rows.map(({ userId }) => userId)}::text[],
      ${rows.map(({ requestId }) => requestId)}::text[],
      ${rows.map(({ occurredAt }) => occurredAt)}::timestamptz[], ${rows.map(({ patch }) => patch)}::bytea[],
      ${rows.map(({ others }) => others)}::bytea[], ${rows.map(({ data }) => data)}::bytea[]
    ) as a (ordinal, partition, change_id, entity, server_id, op, is_foreign, user_id, request_id, occurred_at,
      patch, others, data)
    join changed on changed.entity = a.entity and changed.server_id = a.server_id
    where head.is_followed
  )`;
}

function toRow(record: RecordWrite & { ordinal: number }, codec: PayloadCodec) {
  const { entity, serverId, data, mutation, ordinal } = record;
  const { patch, others } = differencesOf(record);
  const encoded = (text: string | null): Buffer | null => (text === null ? null : codec.encode(text));
  return {
    ordinal,
    partition: partitionOf(record),
    changeId: mutation?.id ?? randomUUID(),
    entity,
    serverId,
    op: operationOf(record),
    isForeign: mutation === undefined && record.changedBy === null,
    userId: mutation?.userId ?? null,
    requestId: mutation?.requestId ?? null,
    occurredAt: storable(mutation?.occurredAt ?? null),
    patch: encoded(patch),
    others: encoded(others),
    data: encoded(data),
  };
}

/**
 * The create of a record that was known before, since others had found it first, is a change of it: its patch does not
 * tell the whole record.
 */
function operationOf({ data, before = null, mutation }: RecordWrite): "create" | "update" | "delete" {
  if (data === null) return "delete";
  return mutation?.op === "create" && before === null ? "create" : "update";
}

/** Phones' clocks say anything; what Postgres might not take counts as unknown. */
function storable(time: Date | null): Date | null {
  const year = time?.getUTCFullYear() ?? NaN;
  return year >= 1970 && year <= 9999 ? time : null;
}

/**
 * What the mutation changed, and that together with what else was found changed by then. Of a mutation that has crossed
 * another, both belong to the change. Of a create that is the record, in the names that its client gave.
 */
function differencesOf({ data, before = null, mutation }: RecordWrite): {
  patch: string | null;
  others: string | null;
} {
  if (data === null) return { patch: null, others: null };
  if (!mutation?.patch) return { patch: before === null ? data : patchBetween(before, data), others: null };
  const { asMeant, asSent } = mutation.patch;
  if (mutation.op === "create" && !mutation.isCrossed) return { patch: asMeant, others: null };
  const rest = patchBetween(mergePatch(before ?? undefined, asSent), data);
  const whole = composePatches(asMeant, rest);
  if (mutation.isCrossed) return { patch: before === null ? onlyWhatIsIn(data, whole) : whole, others: null };
  return { patch: asMeant, others: rest === "{}" ? null : whole };
}
