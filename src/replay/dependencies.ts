import { sql, type Transaction } from "kysely";

import { uuidArray } from "../platform/pg-arrays.ts";
import type { Database, FinalStatus } from "../platform/schema.ts";

/** A mutation that another names in `dependsOn`. */
export interface Dependency {
  mutationId: string;
  clientId: string;
  /** Null while it has not ended. */
  status: FinalStatus | null;
  endedAt: Date | null;
  isCreate: boolean;
}

/** The recorded mutations among `ids`, by id. */
export async function readDependencies(
  trx: Transaction<Database>,
  tenantId: string,
  ids: string[],
): Promise<Map<string, Dependency>> {
  const { rows } = await sql<{
    mutation_id: string;
    client_id: string;
    status: FinalStatus | null;
    settled_at: Date | null;
    is_create: boolean;
  }>`
    select mutation_id, client_id, status, settled_at, temp_id is not null as is_create from mutation_key
    where tenant_id = ${tenantId} and mutation_id = any(${uuidArray(ids)}::uuid[])`.execute(trx);
  return new Map(
    rows.map((row) => [
      row.mutation_id,
      {
        mutationId: row.mutation_id,
        clientId: row.client_id,
        status: row.status,
        endedAt: row.settled_at,
        isCreate: row.is_create,
      },
    ]),
  );
}
