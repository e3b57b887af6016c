import { sql, type RawBuilder, type Transaction } from "kysely";

import type { PayloadCodec } from "./payload-codec.ts";
import type { Database } from "./schema.ts";

/**
 * Reads rows with a payload each as one row of lists: a list for each column, and the payloads as one run of bytes. To take
 * many rows apart field by field costs the driver more than it costs Postgres to find them.
 *
 * @param rows a query with `columns`, and with `key_id` and `data`, which may be null.
 * @param order of the rows, by these columns.
 * @returns what a list in JSON can hold of each column: a `bigint` is a number, a safe integer or not exact.
 */
export async function readPacked<Row extends object>(
  trx: Transaction<Database>,
  rows: RawBuilder<unknown>,
  { columns, order, codec }: { columns: readonly string[]; order: string[]; codec: PayloadCodec },
): Promise<(Row & { data: string | null })[]> {
  const inOrder = sql`order by ${sql.join(order.map((column) => sql.ref(column)))}`;
  const lists = columns.map((column) => sql`json_agg(${sql.ref(column)} ${inOrder}) as ${sql.ref(column)}`);
  const result = await sql<Packed>`
    select ${sql.join(lists)}, json_agg(key_id ${inOrder}) as key_ids,
      json_agg(octet_length(data) ${inOrder}) as lengths, string_agg(data, ''::bytea ${inOrder}) as payloads
    from (${rows}) packed`.execute(trx);
  const [packed] = result.rows;
  return packed ? unpack<Row>(packed, columns, codec) : [];
}

/** All null when there are no rows. */
interface Packed {
  [column: string]: unknown;
  key_ids: (string | null)[] | null;
  /** Null for a row without a payload, which has no bytes in the run either. */
  lengths: (number | null)[] | null;
  payloads: Buffer | null;
}

function unpack<Row extends object>(
  { key_ids: keyIds, lengths, payloads, ...lists }: Packed,
  columns: readonly string[],
  codec: PayloadCodec,
): (Row & { data: string | null })[] {
  let at = 0;
  return (lengths ?? []).map((length, index) => {
    const row: Record<string, unknown> = { data: null };
    for (const column of columns) row[column] = (lists[column] as unknown[])[index];
    const keyId = keyIds?.[index];
    if (length !== null && payloads && typeof keyId === "string")
      row["data"] = codec.decode(keyId, payloads.subarray(at, (at += length)));
    return row as Row & { data: string | null };
  });
}
