import { sql, type Kysely, type Transaction } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database, PruningKind } from "../platform/schema.ts";

/** Something that is pruned in rounds: its rows are gone through by their key, a batch in each transaction. */
export interface Pruner {
  kind: PruningKind;
  /** Runs before the first batch of a round, in its transaction. */
  begin?: (trx: Transaction<Database>, tenantId: string) => Promise<void>;
  /** @param after what the batch before ended with; undefined at the beginning of a round. */
  prune: (trx: Transaction<Database>, tenantId: string, after: unknown) => Promise<PrunedBatch>;
}

export interface PrunedBatch {
  /** Where the next batch begins, as JSON; undefined at the end of the round. */
  next: object | undefined;
  /** Rows that are gone, by what they were. */
  pruned: Record<string, number>;
}

/** A round begins about so long after the one before has ended. */
export const roundEveryMs = 86_400_000;

/** What is due to be pruned of a tenant. What never was is spread over the first day. */
export async function readDue(
  db: Kysely<Database>,
  tenantId: string,
  kinds: readonly PruningKind[],
): Promise<PruningKind[]> {
  const { rows } = await inTenant(db, tenantId, async (trx) => {
    await sql`
      insert into pruning (tenant_id, kind, due_at)
      select ${tenantId}, kind, now() + random() * ${roundEveryMs}::float8 * interval '1 millisecond'
      from unnest(${kinds}::text[]) as k (kind)
      on conflict do nothing`.execute(trx);
    return await sql<{ kind: PruningKind }>`
      select kind from pruning where tenant_id = ${tenantId} and due_at <= now()`.execute(trx);
  });
  return rows.map(({ kind }) => kind).filter((kind) => kinds.includes(kind));
}

/**
 * Prunes the next batch of a round that is due, or begins one. Undefined when none is due, or another process has it in
 * hand.
 */
export async function pruneBatch(
  db: Kysely<Database>,
  tenantId: string,
  pruner: Pruner,
): Promise<PrunedBatch | undefined> {
  return await inTenant(db, tenantId, async (trx) => {
    const { rows } = await sql<{ place: unknown }>`
      select place from pruning
      where tenant_id = ${tenantId} and kind = ${pruner.kind} and due_at <= now()
      for update skip locked`.execute(trx);
    const [round] = rows;
    if (!round) return undefined;
    if (round.place === null) await pruner.begin?.(trx, tenantId);
    const batch = await pruner.prune(trx, tenantId, round.place ?? undefined);
    await keepPlace(trx, tenantId, pruner.kind, batch.next);
    return batch;
  });
}

async function keepPlace(
  trx: Transaction<Database>,
  tenantId: string,
  kind: PruningKind,
  next: object | undefined,
): Promise<void> {
  const isLast = next === undefined;
  await sql`
    update pruning set place = ${isLast ? null : JSON.stringify(next)}::jsonb,
      finished_at = case when ${isLast} then now() else finished_at end,
      due_at = case when ${isLast}
        then now() + (0.75 + random() / 2) * ${roundEveryMs}::float8 * interval '1 millisecond' else due_at end
    where tenant_id = ${tenantId} and kind = ${kind}`.execute(trx);
}
