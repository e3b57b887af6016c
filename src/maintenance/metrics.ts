import { sql, type Kysely } from "kysely";
import { Counter, Gauge, type Registry } from "prom-client";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

/** What pruning tells Prometheus. */
export interface PruningMetrics {
  pruned: (tenantId: string, rows: Record<string, number>) => void;
}

export function createPruningMetrics(
  registry: Registry,
  { db, tenantIds }: { db: Kysely<Database>; tenantIds: readonly string[] },
): PruningMetrics {
  const pruned = new Counter({
    name: "tidegate_pruned_rows_total",
    help: "Rows that were deleted, or emptied, because nobody needs them any more.",
    labelNames: ["tenant", "rows"],
    registers: [registry],
  });
  const age = new Gauge({
    name: "tidegate_pruning_age_seconds",
    help: "How long ago a round of pruning last came to its end, or was first planned.",
    labelNames: ["tenant", "kind"],
    registers: [],
    async collect() {
      // With the database away there is nothing to tell; the other metrics still are.
      const ages = await readAges(db, tenantIds).catch(() => []);
      this.reset();
      for (const { tenant, kind, seconds } of ages) this.set({ tenant, kind }, seconds);
    },
  });
  registry.registerMetric(age);
  return {
    pruned(tenant, rows) {
      for (const [name, count] of Object.entries(rows)) pruned.inc({ tenant, rows: name }, count);
    },
  };
}

interface Age {
  tenant: string;
  kind: string;
  seconds: number;
}

async function readAges(db: Kysely<Database>, tenantIds: readonly string[]): Promise<Age[]> {
  const ages: Age[] = [];
  for (const tenant of tenantIds) {
    const { rows } = await inTenant(db, tenant, (trx) =>
      sql<Omit<Age, "tenant">>`
        select kind, extract(epoch from now() - coalesce(finished_at, created_at))::float8 as seconds
        from pruning where tenant_id = ${tenant}`.execute(trx),
    );
    ages.push(...rows.map((row) => ({ tenant, ...row })));
  }
  return ages;
}
