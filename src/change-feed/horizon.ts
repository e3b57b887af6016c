import { sql, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/**
 * Remembers where the feed's head is, unless that was done in the last `everyMs`: what stands up to there is older than
 * whatever will have been written since.
 */
export async function markHead(
  trx: Transaction<Database>,
  tenantId: string,
  { everyMs }: { everyMs: number },
): Promise<void> {
  await sql`
    insert into feed_mark (tenant_id, position)
    select ${tenantId}, position from feed_head
    where tenant_id = ${tenantId} and not exists (
      select 1 from feed_mark
      where tenant_id = ${tenantId} and marked_at > clock_timestamp() - ${everyMs}::float8 * interval '1 millisecond'
    )
    on conflict do nothing`.execute(trx);
}

/**
 * Moves the oldest valid cursor to the newest mark that is older than `keepMs`, and never back. From its commit on a
 * cursor from before it is `cursor-expired`, and only then may anything up to there be pruned that is not superseded.
 */
export async function moveHorizon(
  trx: Transaction<Database>,
  tenantId: string,
  { keepMs }: { keepMs: number },
): Promise<void> {
  await sql`
    with reached as (
      select marked_at, position from feed_mark
      where tenant_id = ${tenantId}
        and marked_at <= clock_timestamp() - ${keepMs}::float8 * interval '1 millisecond'
      order by marked_at desc limit 1
    ), passed as (
      delete from feed_mark using reached
      where feed_mark.tenant_id = ${tenantId} and feed_mark.marked_at < reached.marked_at
    )
    insert into feed_horizon (tenant_id, position) select ${tenantId}, position from reached
    on conflict (tenant_id) do update set position = excluded.position, moved_at = now()
      where feed_horizon.position < excluded.position`.execute(trx);
}
