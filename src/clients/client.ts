import { sql, type Transaction } from "kysely";

import { TidegateError } from "../platform/errors.ts";
import type { Database } from "../platform/schema.ts";

export interface ClientKey {
  tenantId: string;
  clientId: string;
}

/**
 * Locks the client's row until the transaction ends, making it on first use, and returns its last seq.
 *
 * @throws {TidegateError} `client-owned` when the client belongs to another user.
 */
export async function lockClient(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  userId: string,
): Promise<number> {
  const { rows } = await sql<{ user_id: string; last_seq: string }>`
    insert into client (tenant_id, client_id, user_id) values (${tenantId}, ${clientId}, ${userId})
    on conflict (tenant_id, client_id) do update set seen_at = now()
    returning user_id, last_seq`.execute(trx);
  const client = rows[0];
  if (!client) throw new Error("a client's row is missing after it was written");
  if (client.user_id !== userId) throw clientOwned();
  return Number(client.last_seq);
}

/**
 * Makes sure that a client is the user's own, for reads. A client that has never uploaded is nobody's, and allowed.
 *
 * @throws {TidegateError} `client-owned` when the client belongs to another user.
 */
export async function assertOwnClient(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  userId: string,
): Promise<void> {
  const client = await trx
    .selectFrom("client")
    .select("user_id")
    .where("tenant_id", "=", tenantId)
    .where("client_id", "=", clientId)
    .executeTakeFirst();
  if (client && client.user_id !== userId) throw clientOwned();
}

/** Keeps what the app says of its version, in the transaction that has locked the client. */
export async function recordAppVersion(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  appVersion: string,
): Promise<void> {
  await trx
    .updateTable("client")
    .set({ app_version: appVersion })
    .where("tenant_id", "=", tenantId)
    .where("client_id", "=", clientId)
    .execute();
}

/** The users of clients, by client; those that have never uploaded are left out. */
export async function readOwners(
  trx: Transaction<Database>,
  tenantId: string,
  clientIds: string[],
): Promise<Map<string, string>> {
  if (clientIds.length === 0) return new Map();
  const { rows } = await sql<{ client_id: string; user_id: string }>`
    select client_id, user_id from client
    where tenant_id = ${tenantId} and client_id = any(${clientIds}::uuid[])`.execute(trx);
  return new Map(rows.map((row) => [row.client_id, row.user_id]));
}

/** Records that a client no longer has the mutations after `afterSeq` up to `throughSeq`, and never will. */
export async function recordLoss(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  { afterSeq, throughSeq }: { afterSeq: number; throughSeq: number },
): Promise<void> {
  await trx
    .insertInto("incident")
    .values({
      tenant_id: tenantId,
      client_id: clientId,
      kind: "lost-mutations",
      after_seq: afterSeq,
      through_seq: throughSeq,
    })
    .execute();
}

export function clientOwned(): TidegateError {
  return new TidegateError("client-owned", "The clientId belongs to another user.");
}
