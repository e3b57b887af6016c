import { sql, type RawBuilder, type Transaction } from "kysely";

import { readPacked } from "../platform/packed-rows.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import { textArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";
import { scopeAudience } from "./audience.ts";
import { seen, seenColumns, toSeen, toShown, type SeenRow, type ShownRecord } from "./shown-record.ts";

/** How far a snapshot has come: through the reader's scopes one after the other, in each by position. */
export interface SnapshotPlace {
  /** The feed's head when the snapshot began. What is written after it comes by the cursor. */
  until: number;
  /** Which of the reader's scopes. */
  scope: number;
  /** The last position read there. */
  after: number;
}

export interface SnapshotReader {
  tenantId: string;
  /** In the same order for every page of a snapshot. */
  scopes: readonly string[];
  clientId: string | undefined;
}

export interface SnapshotPage {
  records: ShownRecord[];
  /** Where the next page begins; undefined at the end. */
  next: SnapshotPlace | undefined;
}

/**
 * The records that have not changed since the snapshot began, from a place on.
 *
 * A record has a row in each of its scopes at its feed position. It is shown by that in the first of the reader's scopes
 * that it is in, and by no other: so once. Rows at which it does not stand any more are passed over, and count: a page
 * reads `limit` rows, and one, whatever is shown of them.
 */
export async function readSnapshot(
  trx: Transaction<Database>,
  reader: SnapshotReader,
  place: SnapshotPlace,
  { limit, codec }: { limit: number; codec: PayloadCodec },
): Promise<SnapshotPage> {
  const rows = await readPacked<SnapshotRow>(trx, selectRows(reader, place, limit + 1), {
    columns: ["step", "position", ...seenColumns],
    order: ["step", "position"],
    codec,
  });
  const page = rows.slice(0, limit);
  const last = rows.length > limit ? page.at(-1) : undefined;
  return {
    records: page.flatMap((row) => toRecords(row, reader, place)),
    next: last && { until: place.until, scope: scopeOf(last, place), after: last.position },
  };
}

type SnapshotRow = {
  /** From 1, counted from the scope in which the page begins. */
  step: number;
  position: number;
} & (SeenRow | { [column in keyof SeenRow]: null });

function scopeOf({ step }: SnapshotRow, { scope }: SnapshotPlace): number {
  return scope + step - 1;
}

/** At most `limit` rows from a place on, each with its record if that still stands there. */
export function selectRows(
  { tenantId, scopes }: SnapshotReader,
  { until, scope, after }: SnapshotPlace,
  limit: number,
): RawBuilder<unknown> {
  const audiences = scopes.slice(scope).map(scopeAudience);
  // One audience after the other along the primary key, each for as many rows as are left: however many there are, no
  // row is read that does not count.
  return sql`
    with recursive walk (step, total, positions, entities, ids) as (
      select 0, 0, null::bigint[], null::text[], null::text[]
      union all
      select walk.step + 1, walk.total + part.count, part.positions, part.entities, part.ids
      from walk cross join lateral (
        select count(*)::integer, array_agg(position), array_agg(entity), array_agg(record_id)
        from (
          select position, entity, record_id from feed
          where tenant_id = ${tenantId} and audience = (${textArray(audiences)}::text[])[walk.step + 1]
            and position > case walk.step when 0 then ${after}::bigint else 0 end and position <= ${until}
          order by position limit ${limit}::integer - walk.total
        ) page
      ) as part (count, positions, entities, ids)
      where walk.step < ${audiences.length} and walk.total < ${limit}
    )
    select walk.step, f.position, ${seen}
    from walk cross join lateral unnest(walk.positions, walk.entities, walk.ids) as f (position, entity, record_id)
    left join record r on r.tenant_id = ${tenantId} and r.entity = f.entity and r.server_id = f.record_id
      and r.feed_position = f.position and not r.deleted`;
}

function toRecords(
  row: SnapshotRow,
  { scopes, clientId }: SnapshotReader,
  place: SnapshotPlace,
): ShownRecord[] {
  if (row.entity === null) return [];
  const first = scopes.findIndex((scope) => row.scopes.includes(scope));
  if (first !== scopeOf(row, place)) return [];
  const shown = toShown(toSeen(row), clientId);
  return shown ? [shown] : [];
}
