import { expect } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { shadowPruners } from "../../src/maintenance/pruners.ts";
import { pruneBatch } from "../../src/maintenance/round.ts";
import type { TestGateway } from "../fixtures/gateway.ts";
import { rowsOf } from "../replay/rows.ts";

/**
 * Prunes all that shadows leave behind in the tenant `ours`, in small batches, as the service.
 *
 * @returns how many rows went.
 */
export async function pruneShadows(
  { database }: Pick<TestGateway, "database">,
  rowsMax = 7,
): Promise<Record<string, number>> {
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  const gone: Record<string, number> = {};
  try {
    for (const pruner of shadowPruners({ rowsMax })) {
      await rowsOf(
        database,
        `insert into pruning (tenant_id, kind) values ('ours', $1)
         on conflict (tenant_id, kind) do update set due_at = now()`,
        [pruner.kind],
      );
      for (let next: object | undefined = {}; next;) {
        const batch = await pruneBatch(db, "ours", pruner);
        for (const [name, count] of Object.entries(batch?.pruned ?? {}))
          gone[name] = (gone[name] ?? 0) + count;
        next = batch?.next;
      }
    }
  } finally {
    await db.destroy();
  }
  return gone;
}

/** How many rows there are for shadows. */
export async function leftOf({ database }: Pick<TestGateway, "database">): Promise<Record<string, number>> {
  const tables = [
    "applied_change",
    "shadow",
    "shadow_seed",
    "shadow_record",
    "shadow_listing",
    "shadow_listed",
  ];
  const counts = tables.map((table) => `(select count(*)::integer from ${table}) as ${table}`);
  const ofLanes = `(select count(*)::integer from lane where partition is not null) as lane,
    (select count(*)::integer from delivery) as delivery`;
  const [row] = await rowsOf<Record<string, number>>(database, `select ${counts.join(", ")}, ${ofLanes}`);
  expect(row).toBeDefined();
  return Object.fromEntries(Object.entries(row ?? {}).filter(([, count]) => count > 0));
}
