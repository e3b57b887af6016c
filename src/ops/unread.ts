import { sql, type Transaction } from "kysely";

import type { Database, FinalStatus, StoredProblem } from "../platform/schema.ts";
import { firstPage, toPage, type PageEnd } from "./page-end.ts";

/** An outcome that its client has not read, as far as is known. */
export interface UnreadOutcome {
  mutation_id: string;
  client_id: string;
  user_id: string;
  seq: string;
  entity: string;
  status: FinalStatus;
  problem: StoredProblem | null;
  told_at: Date;
  since: string;
}

/** Those of a tenant that no operator has seen, behind `after`; the oldest first. */
export async function readUnread(
  trx: Transaction<Database>,
  tenantId: string,
  { after, limit }: { after: PageEnd | undefined; limit: number },
): Promise<{ page: UnreadOutcome[]; next: PageEnd | undefined }> {
  const { since, id } = after ?? firstPage;
  const { rows } = await sql<UnreadOutcome>`
    select u.mutation_id, u.client_id, c.user_id, k.seq, k.entity, k.status, k.problem, u.told_at,
      u.told_at::text as since
    from (
      select * from unread_outcome
      where tenant_id = ${tenantId} and seen_at is null
        and (told_at, mutation_id) > (${since}::timestamptz, ${id}::uuid)
      order by told_at, mutation_id limit ${limit} + 1
    ) u
    join client c on c.tenant_id = ${tenantId} and c.client_id = u.client_id
    join mutation_key k on k.tenant_id = ${tenantId} and k.mutation_id = u.mutation_id
    order by u.told_at, u.mutation_id`.execute(trx);
  return toPage(rows, limit);
}

/** An operator has told the user. False: it is not unread, or was seen before; then nothing changes. */
export async function markSeen(
  trx: Transaction<Database>,
  tenantId: string,
  { mutationId, by, reason }: { mutationId: string; by: string; reason: string },
): Promise<boolean> {
  const { numAffectedRows = 0n } = await sql`
    update unread_outcome u set seen_at = clock_timestamp(), seen_by = ${by}, seen_reason = ${reason}
    from mutation_key k
    where k.tenant_id = ${tenantId} and k.mutation_id = ${mutationId} and u.tenant_id = ${tenantId}
      and u.client_id = k.client_id and u.mutation_id = k.mutation_id and u.seen_at is null`.execute(trx);
  return numAffectedRows > 0n;
}
