import { sql } from "kysely";

import { inTenant } from "../../../src/platform/db.ts";
import { lockRecords, recordKey } from "../../../src/records/record.ts";
import type { WriteRecord } from "./writers.ts";

/**
 * What the feed must not be: the position is taken as from a sequence, for good and before the transaction that it is for
 * has ended, so a later one may be seen first.
 */
export const writeBySequence: WriteRecord = async ({ world, tenantId }, wanted, holdMs) => {
  const key = { entity: "activity", serverId: wanted.serverId };
  await inTenant(world.db, tenantId, async (trx) => {
    const known = (await lockRecords(trx, tenantId, [key])).get(recordKey(key));
    if (!known) return;
    const { rows } = await inTenant(world.db, tenantId, (other) =>
      sql<{ position: string }>`
        update feed_head set position = position + 1 where tenant_id = ${tenantId} returning position`.execute(
        other,
      ),
    );
    const left = known.scopes.filter((scope) => !wanted.scopes.includes(scope));
    await sql`
      with moved as (
        update record set version = version + 1, feed_position = ${rows[0]?.position}::bigint,
          deleted = ${wanted.isDeleted}, data = case when ${wanted.isDeleted} then null else '{}'::bytea end,
          scopes = ${wanted.scopes}::text[]
        where tenant_id = ${tenantId} and entity = 'activity' and server_id = ${wanted.serverId}
      )
      insert into feed (tenant_id, audience, position, kind, entity, record_id)
      select ${tenantId}, 's:' || scope, ${rows[0]?.position}::bigint,
        case when scope = any(${left}::text[]) then 'revoke' else 'record' end, 'activity', ${wanted.serverId}
      from unnest(${[...wanted.scopes, ...left]}::text[]) as s (scope)`.execute(trx);
    await sql`select pg_sleep(${(holdMs + 10) / 1_000})`.execute(trx);
  });
};
