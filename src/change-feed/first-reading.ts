import { sql, type Transaction } from "kysely";

import { TidegateError } from "../platform/errors.ts";
import type { Database } from "../platform/schema.ts";

/** What of a primary is read from it, so that its records are known. */
export interface Polled {
  upstreamId: string;
  entities: readonly string[];
}

/**
 * Makes sure that the primary's records were read once, as far as they are to be read: a snapshot would lack some.
 * @throws {TidegateError} `not-ready`: the client asks again later.
 */
export async function assertReadOnce(
  trx: Transaction<Database>,
  tenantId: string,
  { upstreamId, entities }: Polled,
): Promise<void> {
  if (entities.length === 0) return;
  const { rows } = await sql<{ count: number }>`
    select count(*)::integer as count from inbound_entity
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = any(${entities}::text[])
      and swept_at is not null`.execute(trx);
  if (rows[0]?.count !== entities.length) {
    throw new TidegateError("not-ready", "The system of record is being read for the first time.");
  }
}
