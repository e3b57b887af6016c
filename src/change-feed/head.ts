import { sql, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/** The last position given out in the tenant's feed, 0 before the first, and its epoch. */
export async function readHead(
  trx: Transaction<Database>,
  tenantId: string,
): Promise<{ position: number; epoch: string }> {
  const { rows } = await sql<{ position: string; epoch: string }>`
    select coalesce(h.position, 0) as position, i.epoch
    from installation i left join feed_head h on h.tenant_id = ${tenantId}`.execute(trx);
  if (!rows[0]) throw new Error("the installation row is missing");
  return { position: Number(rows[0].position), epoch: rows[0].epoch };
}
