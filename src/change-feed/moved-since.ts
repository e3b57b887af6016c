import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import { bigintArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";
import { toRecord, type RecordRow, type StoredRecord } from "../records/record.ts";

/** An outcome's place in the feed. */
export interface OutcomeRow {
  mutationId: string;
  position: number;
}

/**
 * The records that outcomes tell of and that have changed since, by mutation. Of what was rejected there are none: it may
 * name a record that its client must not learn of.
 */
export async function readMovedSince(
  trx: Transaction<Database>,
  tenantId: string,
  outcomes: OutcomeRow[],
  codec: PayloadCodec,
): Promise<Map<string, StoredRecord>> {
  if (outcomes.length === 0) return new Map();
  const { rows } = await sql<RecordRow & { mutation_id: string }>`
    select k.mutation_id, r.entity, r.server_id, r.version, r.feed_position, r.deleted, r.scopes, r.upstream_version,
      r.temp_id, r.created_by, r.changed_by, r.changed_base, r.key_id, r.data
    from unnest(${uuidArray(outcomes.map(({ mutationId }) => mutationId))}::uuid[],
      ${bigintArray(outcomes.map(({ position }) => position))}::bigint[]) as o (mutation_id, position)
    join mutation_key k on k.tenant_id = ${tenantId} and k.mutation_id = o.mutation_id
    join record r on r.tenant_id = ${tenantId} and r.entity = k.entity and r.server_id = k.record_id
    where k.status in ('applied', 'conflict') and r.feed_position > o.position`.execute(trx);
  return new Map(rows.map((row) => [row.mutation_id, toRecord(row, codec)]));
}
