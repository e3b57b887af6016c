import { sql, type Kysely } from "kysely";
import { Gauge, type Registry } from "prom-client";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";

interface UpstreamFigures {
  tenant: string;
  upstream: string;
  parked: number;
  retrying: number;
  /** Only of a shadow. */
  lag: { positions: number; seconds: number } | undefined;
}

interface UpstreamRow {
  upstream: string;
  parked: number;
  retrying: number;
  positions: string | null;
  seconds: number | null;
}

/** Several scrapers, and the gauges of one scrape, share a look. */
const figuresAgeMsMax = 5_000;

/** What waits at each upstream, as Postgres says. @param upstreamIds by tenant. */
export function registerUpstreamGauges(
  registry: Registry,
  db: Kysely<Database>,
  upstreamIds: ReadonlyMap<string, readonly string[]>,
): void {
  let looked = { at: -Infinity, figures: Promise.resolve([] as UpstreamFigures[]) };
  const look = async (): Promise<UpstreamFigures[]> => {
    const now = performance.now();
    if (now - looked.at > figuresAgeMsMax) looked = { at: now, figures: readFigures(db, upstreamIds) };
    return await looked.figures;
  };
  const gauge = (name: string, help: string, pick: (one: UpstreamFigures) => number | undefined): void => {
    const own = new Gauge({
      name,
      help,
      labelNames: ["tenant", "upstream"],
      registers: [],
      async collect() {
        // With the database away there is nothing to tell; the other metrics still are.
        const figures = await look().catch(() => []);
        this.reset();
        for (const one of figures) {
          const value = pick(one);
          if (value !== undefined) this.set({ tenant: one.tenant, upstream: one.upstream }, value);
        }
      },
    });
    registry.registerMetric(own);
  };
  gauge("tidegate_mutations_parked", "Mutations that a person has to decide about.", ({ parked }) => parked);
  gauge(
    "tidegate_mutations_retrying",
    "Mutations that were tried in vain, by themselves or because a person wanted it, and are tried again.",
    ({ retrying }) => retrying,
  );
  gauge(
    "tidegate_shadow_lag_positions",
    "How many positions of the log, seeds included, the shadow's lane that is furthest behind has before it.",
    ({ lag }) => lag?.positions,
  );
  gauge(
    "tidegate_shadow_lag_seconds",
    "How long ago the primary took the oldest change that a shadow does not have; 0 when it has all.",
    ({ lag }) => lag?.seconds,
  );
}

async function readFigures(
  db: Kysely<Database>,
  upstreamIds: ReadonlyMap<string, readonly string[]>,
): Promise<UpstreamFigures[]> {
  const figures: UpstreamFigures[] = [];
  for (const [tenant, ids] of upstreamIds) {
    const { rows } = await inTenant(db, tenant, (trx) =>
      sql<UpstreamRow>`
        select u.id as upstream,
          (select count(*) from delivery
            where tenant_id = ${tenant} and upstream_id = u.id and state = 'parked')::integer as parked,
          (select count(*) from delivery
            where tenant_id = ${tenant} and upstream_id = u.id and state in ('retrying', 'sending'))::integer as retrying,
          lag.positions, lag.seconds
        from unnest(${ids}::text[]) as u (id)
        left join lateral (${lagOf(tenant)}) lag on true`.execute(trx),
    );
    for (const { upstream, parked, retrying, positions, seconds } of rows) {
      const lag = positions === null ? undefined : { positions: Number(positions), seconds: seconds ?? 0 };
      figures.push({ tenant, upstream, parked, retrying, lag });
    }
  }
  return figures;
}

/** Of the upstream `u.id`; null when it is no shadow. */
function lagOf(tenantId: string) {
  return sql`
    select max(positions) as positions, max(seconds)::float8 as seconds
    from (${lagOfLanes(tenantId)} union all ${lagBeforeLanes(tenantId)}) lag`;
}

/** It has been told of, and what it holds is being listed. */
function lagBeforeLanes(tenantId: string) {
  return sql`
    select head.position - s.follows_from + 1 as positions, extract(epoch from now() - s.created_at) as seconds
    from shadow s
    join feed_head head on head.tenant_id = ${tenantId}
    where s.tenant_id = ${tenantId} and s.upstream_id = u.id and not exists (
      select 1 from lane l where l.tenant_id = ${tenantId} and l.upstream_id = u.id and l.partition is not null
    )`;
}

function lagOfLanes(tenantId: string) {
  return sql`
    select case
        when seed.position is not null then head.position - l.follows_from - seed.position
        when next.position is not null then head.position - next.position + 1
        else 0 end as positions,
      coalesce(extract(epoch from now() - case when seed.position is not null then s.created_at
        else next.created_at end), 0) as seconds
    from lane l
    join shadow s on s.tenant_id = ${tenantId} and s.upstream_id = l.upstream_id
    join feed_head head on head.tenant_id = ${tenantId}
    left join lateral (
      select position from shadow_seed
      where tenant_id = ${tenantId} and upstream_id = l.upstream_id and partition = l.partition
        and position > l.position
      order by position limit 1
    ) seed on true
    left join lateral (
      select position, created_at from applied_change
      where tenant_id = ${tenantId} and partition = l.partition and position > greatest(l.position, l.follows_from)
      order by position limit 1
    ) next on true
    where l.tenant_id = ${tenantId} and l.upstream_id = u.id and l.partition is not null`;
}
