import { sql, type Transaction } from "kysely";

import { bigintArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database, FinalStatus, StoredProblem } from "../platform/schema.ts";
import { readDependencies } from "./dependencies.ts";

/** What a mutation's client is told. `parked` is told too, though it is not final. */
export interface Outcome {
  mutationId: string;
  status: FinalStatus | "parked";
  /** False for what was recorded at ingest: the feed only tells it. */
  isNew: boolean;
  recordId?: string | undefined;
  /** The record's version when the commit does not write the record itself. */
  version?: number | undefined;
  problem?: StoredProblem | undefined;
}

export interface SettledOutcome extends Omit<Outcome, "version"> {
  version: number | null;
}

/** Those that have ended. The lane does not move with an outcome of the backlog, so it can't tell that it is written. */
export async function readEnded(
  trx: Transaction<Database>,
  tenantId: string,
  mutationIds: string[],
): Promise<ReadonlySet<string>> {
  if (mutationIds.length === 0) return new Set();
  const known = await readDependencies(trx, tenantId, mutationIds);
  return new Set(mutationIds.filter((id) => (known.get(id)?.status ?? null) !== null));
}

/** Records the final ones among them. */
export async function settleKeys(
  trx: Transaction<Database>,
  tenantId: string,
  outcomes: SettledOutcome[],
): Promise<void> {
  const settled = outcomes.filter(({ status }) => status !== "parked");
  if (settled.length === 0) return;
  await sql`
    update mutation_key k set status = s.status, record_id = s.record_id, version = s.version, problem = s.problem::jsonb,
      settled_at = now()
    from unnest(
      ${uuidArray(settled.map(({ mutationId }) => mutationId))}::uuid[],
      ${textArray(settled.map(({ status }) => status))}::text[],
      ${textArray(settled.map(({ recordId }) => recordId ?? null))}::text[],
      ${bigintArray(settled.map(({ version }) => version))}::bigint[],
      ${textArray(settled.map(({ problem }) => (problem ? JSON.stringify(problem) : null)))}::text[])
      as s (mutation_id, status, record_id, version, problem)
    where k.tenant_id = ${tenantId} and k.mutation_id = s.mutation_id`.execute(trx);
}
