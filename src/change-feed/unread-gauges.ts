import { sql, type Kysely } from "kysely";
import { Gauge, type Registry } from "prom-client";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

/** The gauges of one scrape share a look. */
const figuresAgeMsMax = 1_000;

/** Tells Prometheus of outcomes that neither a client has read nor an operator has seen. */
export function registerUnreadGauges(
  registry: Registry,
  { db, tenantIds }: { db: Kysely<Database>; tenantIds: readonly string[] },
): void {
  let looked = { at: -Infinity, figures: Promise.resolve<Figures[]>([]) };
  const look = async (): Promise<Figures[]> => {
    const now = performance.now();
    // With the database away there is nothing to tell; the other metrics still are.
    if (now - looked.at > figuresAgeMsMax)
      looked = { at: now, figures: readFigures(db, tenantIds).catch(() => []) };
    return await looked.figures;
  };
  const register = (name: string, help: string, pick: (figures: Figures) => number): void => {
    const gauge = new Gauge({
      name,
      help,
      labelNames: ["tenant"],
      registers: [],
      async collect() {
        const figures = await look();
        this.reset();
        for (const one of figures) this.set({ tenant: one.tenant }, pick(one));
      },
    });
    registry.registerMetric(gauge);
  };
  register(
    "tidegate_unread_outcomes",
    "Mutations that ended rejected or in conflict, unread by their client and unseen by operators.",
    ({ unread }) => unread,
  );
  register(
    "tidegate_oldest_unread_outcome_seconds",
    "Since when the oldest of them is unread; 0: there is none.",
    ({ seconds }) => seconds,
  );
}

interface Figures {
  tenant: string;
  unread: number;
  seconds: number;
}

async function readFigures(db: Kysely<Database>, tenantIds: readonly string[]): Promise<Figures[]> {
  const figures: Figures[] = [];
  for (const tenant of tenantIds) {
    const { rows } = await inTenant(db, tenant, (trx) =>
      sql<Omit<Figures, "tenant">>`
        select count(*)::integer as unread,
          coalesce(extract(epoch from now() - min(told_at)), 0)::float8 as seconds
        from unread_outcome where tenant_id = ${tenant} and seen_at is null`.execute(trx),
    );
    figures.push(...rows.map((row) => ({ tenant, ...row })));
  }
  return figures;
}
