import { sql, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

export interface FeedHead {
  /** The last position given out in the tenant's feed, 0 before the first. */
  position: number;
  /** The oldest position that a cursor may have: what came up to there is pruned, but for where records stand. */
  horizon: number;
  epoch: string;
}

export async function readHead(trx: Transaction<Database>, tenantId: string): Promise<FeedHead> {
  const { rows } = await sql<{ position: string; horizon: string; epoch: string }>`
    select coalesce(h.position, 0) as position, coalesce(z.position, 0) as horizon, i.epoch
    from installation i
    left join feed_head h on h.tenant_id = ${tenantId}
    left join feed_horizon z on z.tenant_id = ${tenantId}`.execute(trx);
  const [row] = rows;
  if (!row) throw new Error("the installation row is missing");
  return { position: Number(row.position), horizon: Number(row.horizon), epoch: row.epoch };
}
