import { openDatabase } from "../../src/platform/db.ts";
import { pruneBatch, type Pruner } from "../../src/maintenance/round.ts";
import type { TestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "../replay/rows.ts";

export const dayMs = 86_400_000;

/** A worker's connections, and rounds of pruning by it. */
export interface Rounds extends AsyncDisposable {
  db: ReturnType<typeof openDatabase>;
  /** A whole round; resolves with what is gone. */
  run: (pruner: Pruner) => Promise<Record<string, number>>;
}

export function roundsIn(database: TestDatabase): Rounds {
  const db = openDatabase(database.serviceUrl, { poolMax: 2, onError: () => undefined });
  return {
    db,
    async run(pruner) {
      await makeDue(database, pruner.kind);
      const gone: Record<string, number> = {};
      for (;;) {
        const batch = await pruneBatch(db, "ours", pruner);
        if (!batch) throw new Error("another has the round in hand");
        for (const [name, count] of Object.entries(batch.pruned)) gone[name] = (gone[name] ?? 0) + count;
        if (!batch.next) return gone;
      }
    },
    [Symbol.asyncDispose]: async () => await db.destroy(),
  };
}

/** A round is due. */
export async function makeDue(database: TestDatabase, kind: string): Promise<void> {
  await rowsOf(
    database,
    `insert into pruning (tenant_id, kind) values ('ours', $1)
     on conflict (tenant_id, kind) do update set due_at = now(), finished_at = null, place = null`,
    [kind],
  );
}

/** Everything that has been received, tried and settled was so many days earlier. */
export async function ageBy(database: TestDatabase, days: number): Promise<void> {
  const earlier = `- ${days} * interval '1 day'`;
  await rowsOf(
    database,
    `with blocks as (update inbox_block set received_at = received_at ${earlier}),
       attempts as (update attempt set begun_at = begun_at ${earlier})
     update mutation_key set settled_at = settled_at ${earlier}, accepted_at = accepted_at ${earlier}`,
  );
}

/** Up to which seq each batch reaches that still has its payload. */
export async function payloadsOf(database: TestDatabase, clientId: string): Promise<number[]> {
  const rows = await rowsOf<{ last_seq: string }>(
    database,
    "select last_seq from inbox_block where client_id = $1 and payload is not null order by last_seq",
    [clientId],
  );
  return rows.map((row) => Number(row.last_seq));
}
