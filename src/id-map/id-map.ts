import { sql, type Transaction } from "kysely";

import type { Database, FinalStatus } from "../platform/schema.ts";

/** A temp ID (a bare UUID) and the record that it names for ever. */
export interface Mapping {
  tempId: string;
  entity: string;
  serverId: string;
  clientId: string;
  mutationId: string;
}

/** Two creates of one temp ID took effect at the same moment; the first to be committed keeps the name. */
export class TempIdTaken extends Error {}

/**
 * Publishes mappings.
 * @throws {TempIdTaken} when one of the temp IDs already names a record; the transaction has to be rolled back.
 */
export async function insertMappings(
  trx: Transaction<Database>,
  tenantId: string,
  mappings: Mapping[],
): Promise<void> {
  if (mappings.length === 0) return;
  const { numAffectedRows } = await sql`
    insert into id_map (tenant_id, temp_id, entity, server_id, client_id, mutation_id)
    select ${tenantId}, m.* from unnest(${mappings.map(({ tempId }) => tempId)}::uuid[],
      ${mappings.map(({ entity }) => entity)}::text[], ${mappings.map(({ serverId }) => serverId)}::text[],
      ${mappings.map(({ clientId }) => clientId)}::uuid[], ${mappings.map(({ mutationId }) => mutationId)}::uuid[]) as m
    on conflict (tenant_id, temp_id) do nothing`.execute(trx);
  if (Number(numAffectedRows) !== mappings.length) throw new TempIdTaken("a temp ID already names a record");
}

/** What is known of a temp ID. */
export type TempIdState =
  | { kind: "mapped"; entity: string; serverId: string; mutationId: string }
  /** A create of it is recorded and has not ended. */
  | { kind: "pending"; mutationId: string; clientId: string; seq: number }
  /** Its create ended without a record. */
  | { kind: "failed"; mutationId: string; status: FinalStatus }
  | { kind: "unknown" };

/** What is known of temp IDs (bare UUIDs), in one statement. */
export async function resolveTempIds(
  trx: Transaction<Database>,
  tenantId: string,
  tempIds: string[],
): Promise<Map<string, TempIdState>> {
  const states = new Map<string, TempIdState>(tempIds.map((tempId) => [tempId, { kind: "unknown" }]));
  if (tempIds.length === 0) return states;
  // Of several creates of one temp ID the pending one counts before those that failed.
  const { rows } = await sql<TempIdRow>`
    select distinct on (t.temp_id) t.temp_id, m.entity, m.server_id, m.mutation_id as mapped_by,
      k.mutation_id, k.client_id, k.seq, k.status
    from unnest(${tempIds}::uuid[]) as t (temp_id)
    left join id_map m on m.tenant_id = ${tenantId} and m.temp_id = t.temp_id
    left join mutation_key k on k.tenant_id = ${tenantId} and k.temp_id = t.temp_id
    order by t.temp_id, k.status is not null, k.accepted_at desc`.execute(trx);
  for (const row of rows) states.set(row.temp_id, toState(row));
  return states;
}

interface TempIdRow {
  temp_id: string;
  entity: string | null;
  server_id: string | null;
  mapped_by: string | null;
  mutation_id: string | null;
  client_id: string | null;
  seq: string | null;
  status: FinalStatus | null;
}

function toState(row: TempIdRow): TempIdState {
  if (row.entity !== null && row.server_id !== null && row.mapped_by !== null) {
    return { kind: "mapped", entity: row.entity, serverId: row.server_id, mutationId: row.mapped_by };
  }
  if (row.mutation_id === null || row.client_id === null) return { kind: "unknown" };
  if (row.status !== null) return { kind: "failed", mutationId: row.mutation_id, status: row.status };
  return { kind: "pending", mutationId: row.mutation_id, clientId: row.client_id, seq: Number(row.seq) };
}

/** What one client's temp IDs became, oldest first. */
export async function readMappings(
  trx: Transaction<Database>,
  { tenantId, clientId }: { tenantId: string; clientId: string },
): Promise<Pick<Mapping, "entity" | "tempId" | "serverId">[]> {
  const rows = await trx
    .selectFrom("id_map")
    .select(["entity", "temp_id", "server_id"])
    .where("tenant_id", "=", tenantId)
    .where("client_id", "=", clientId)
    .orderBy("created_at")
    .execute();
  return rows.map((row) => ({ entity: row.entity, tempId: row.temp_id, serverId: row.server_id }));
}
