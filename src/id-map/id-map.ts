import { sql, type Transaction } from "kysely";

import { textArray, uuidArray } from "../platform/pg-arrays.ts";
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
    select ${tenantId}, m.* from unnest(
      ${uuidArray(mappings.map(({ tempId }) => tempId))}::uuid[],
      ${textArray(mappings.map(({ entity }) => entity))}::text[],
      ${textArray(mappings.map(({ serverId }) => serverId))}::text[],
      ${uuidArray(mappings.map(({ clientId }) => clientId))}::uuid[],
      ${uuidArray(mappings.map(({ mutationId }) => mutationId))}::uuid[]) as m
    on conflict (tenant_id, temp_id) do nothing`.execute(trx);
  if (Number(numAffectedRows) !== mappings.length) throw new TempIdTaken("a temp ID already names a record");
}

/** What is known of a temp ID. */
export type TempIdState =
  | { kind: "mapped"; entity: string; serverId: string; mutationId: string }
  /** It names no record. The creates of it that were accepted, oldest first; with none, nobody knows it. */
  | { kind: "unmapped"; creates: Create[] };

export interface Create {
  mutationId: string;
  clientId: string;
  seq: number;
  /** Null while it has not ended. */
  status: FinalStatus | null;
}

/** What is known of temp IDs (bare UUIDs), in one statement. */
export async function resolveTempIds(
  trx: Transaction<Database>,
  tenantId: string,
  tempIds: string[],
): Promise<Map<string, TempIdState>> {
  if (tempIds.length === 0) return new Map();
  const { rows } = await sql<TempIdRow>`
    select t.temp_id, m.entity, m.server_id, m.mutation_id as mapped_by, k.mutation_id, k.client_id, k.seq, k.status
    from unnest(${uuidArray(tempIds)}::uuid[]) as t (temp_id)
    left join id_map m on m.tenant_id = ${tenantId} and m.temp_id = t.temp_id
    left join mutation_key k on k.tenant_id = ${tenantId} and k.temp_id = t.temp_id and m.temp_id is null
    order by k.accepted_at, k.client_id, k.seq`.execute(trx);
  const states = new Map<string, TempIdState>();
  for (const row of rows) {
    const known = states.get(row.temp_id) ?? toState(row);
    states.set(row.temp_id, known);
    if (known.kind === "unmapped") known.creates.push(...toCreate(row));
  }
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

function toState({ entity, server_id: serverId, mapped_by: mutationId }: TempIdRow): TempIdState {
  if (entity === null || serverId === null || mutationId === null) return { kind: "unmapped", creates: [] };
  return { kind: "mapped", entity, serverId, mutationId };
}

function toCreate({ mutation_id: mutationId, client_id: clientId, seq, status }: TempIdRow): Create[] {
  return mutationId === null || clientId === null ? [] : [{ mutationId, clientId, seq: Number(seq), status }];
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
