import { sql, type Kysely } from "kysely";
import { Counter, Gauge, type Registry } from "prom-client";

import { inTenant } from "../platform/db.ts";
import type { Database, PushServiceName } from "../platform/schema.ts";
import type { DeadReason, FailureReason } from "./service.ts";

/** What wake-up push tells Prometheus. The labels are names out of the configuration, and closed lists. */
export interface PushMetrics {
  sent: (tenant: string, service: PushServiceName) => void;
  failed: (tenant: string, service: PushServiceName, reason: FailureReason) => void;
  /** The service said that the address is dead, and the registration was removed. */
  removed: (tenant: string, service: PushServiceName, reason: DeadReason) => void;
}

/** @param services by tenant. */
export function createPushMetrics(
  registry: Registry,
  { db, services }: { db: Kysely<Database>; services: ReadonlyMap<string, readonly PushServiceName[]> },
): PushMetrics {
  const counter = (name: string, help: string, ...labels: string[]) =>
    new Counter({ name, help, labelNames: ["tenant", "service", ...labels], registers: [registry] });
  const sent = counter("tidegate_pushes_sent_total", "Wake-up pushes that the service took.");
  const failed = counter("tidegate_pushes_failed_total", "Attempts at a wake-up push that failed.", "reason");
  const removed = counter(
    "tidegate_push_registrations_removed_total",
    "Registrations removed since the service said that the address is dead.",
    "reason",
  );
  registerGauges(registry, db, services);
  return {
    sent: (tenant, service) => sent.inc({ tenant, service }),
    failed: (tenant, service, reason) => failed.inc({ tenant, service, reason }),
    removed: (tenant, service, reason) => removed.inc({ tenant, service, reason }),
  };
}

/** How a push service stands, as Postgres says. */
export interface PushFigures {
  service: PushServiceName;
  registered: number;
  /** Pushes that could be sent now, and for how long the oldest could. */
  due: number;
  dueSeconds: number;
  /** In a row; 0 when the last push came through. */
  failures: number;
  pausedUntil: Date | null;
  /** The last one, also when it is over. */
  problem: string | null;
  problemAt: Date | null;
}

export async function readPushFigures(
  db: Kysely<Database>,
  tenantId: string,
  services: readonly PushServiceName[],
): Promise<PushFigures[]> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<PushFigures>`
      select n.service, coalesce(r.registered, 0) as registered, coalesce(r.due, 0) as due,
        coalesce(r."dueSeconds", 0) as "dueSeconds", coalesce(s.failures, 0) as failures,
        case when s.paused_until > now() then s.paused_until end as "pausedUntil", s.problem, s.problem_at as "problemAt"
      from unnest(${services}::text[]) as n (service)
      left join lateral (
        select count(*)::integer as registered, count(*) filter (where due_at <= now())::integer as due,
          greatest(extract(epoch from now() - min(due_at)), 0)::float8 as "dueSeconds"
        from push_registration where tenant_id = ${tenantId} and service = n.service
      ) r on true
      left join push_service s on s.tenant_id = ${tenantId} and s.service = n.service`.execute(trx),
  );
  return rows;
}

/** Several scrapers, and the gauges of one scrape, share a look. */
const figuresAgeMsMax = 15_000;

type TenantFigures = PushFigures & { tenant: string };

function registerGauges(
  registry: Registry,
  db: Kysely<Database>,
  services: ReadonlyMap<string, readonly PushServiceName[]>,
): void {
  let looked = { at: -Infinity, figures: Promise.resolve([] as TenantFigures[]) };
  const look = async (): Promise<TenantFigures[]> => {
    const now = performance.now();
    if (now - looked.at > figuresAgeMsMax) looked = { at: now, figures: readAll(db, services) };
    return await looked.figures;
  };
  const gauge = (name: string, help: string, pick: (figures: PushFigures) => number): void => {
    const own = new Gauge({
      name,
      help,
      labelNames: ["tenant", "service"],
      registers: [],
      async collect() {
        // With the database away there is nothing to tell; the other metrics still are.
        const figures = await look().catch(() => []);
        this.reset();
        for (const one of figures) this.set({ tenant: one.tenant, service: one.service }, pick(one));
      },
    });
    registry.registerMetric(own);
  };
  gauge("tidegate_push_registrations", "Clients that can be woken.", ({ registered }) => registered);
  gauge(
    "tidegate_push_overdue_seconds",
    "For how long the oldest push that is due has been; 0 when there is none.",
    ({ dueSeconds }) => dueSeconds,
  );
  gauge(
    "tidegate_push_service_failures",
    "Failures in a row of a push service; 0 while it takes pushes.",
    ({ failures }) => failures,
  );
}

async function readAll(
  db: Kysely<Database>,
  services: ReadonlyMap<string, readonly PushServiceName[]>,
): Promise<TenantFigures[]> {
  const all: TenantFigures[] = [];
  for (const [tenant, names] of services) {
    for (const figures of await readPushFigures(db, tenant, names)) all.push({ tenant, ...figures });
  }
  return all;
}
