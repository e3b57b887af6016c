import { sql, type Kysely } from "kysely";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import type { Call, ListCall } from "../upstream/connector.ts";
import type {
  CreateRecord,
  LookupRecord,
  ReadRecord,
  RemoveRecord,
  UpdateRecord,
  Upstream,
} from "../upstream/upstream.ts";
import { registerUpstreamGauges } from "./upstream-gauges.ts";

/** What replay tells Prometheus. The labels are names out of the configuration, and closed lists. */
export interface ReplayMetrics {
  /** A mutation has its outcome, or was parked. */
  settled(tenantId: string, upstreamId: string, status: string): void;
  /** An attempt at a mutation failed; what is done about it. */
  failed(tenantId: string, upstreamId: string, disposition: string): void;
  /** The upstream, with the duration of each of its calls observed. */
  observed(tenantId: string, upstream: Upstream): Upstream;
}

export function createReplayMetrics(
  registry: Registry,
  { db, upstreamIds }: { db: Kysely<Database>; upstreamIds: ReadonlyMap<string, readonly string[]> },
): ReplayMetrics {
  const registers = [registry];
  const settled = new Counter({
    name: "tidegate_mutations_settled_total",
    help: "Mutations that got their outcome (applied, conflict, rejected) or were parked.",
    labelNames: ["tenant", "upstream", "status"],
    registers,
  });
  const failed = new Counter({
    name: "tidegate_attempts_failed_total",
    help: "Attempts at a mutation that failed, by what is done about it.",
    labelNames: ["tenant", "upstream", "disposition"],
    registers,
  });
  const duration = new Histogram({
    name: "tidegate_upstream_call_duration_seconds",
    help: "Time from the last look before a request is written to the end of its answer.",
    labelNames: ["tenant", "upstream", "operation", "result"],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers,
  });
  const opened: { tenant: string; upstream: Upstream }[] = [];
  registerBreakerGauge(registry, opened);
  registerLaneGauges(registry, db, [...upstreamIds.keys()]);
  registerUpstreamGauges(registry, db, upstreamIds);
  return {
    settled: (tenant, upstream, status) => settled.inc({ tenant, upstream, status }),
    failed: (tenant, upstream, disposition) => failed.inc({ tenant, upstream, disposition }),
    observed(tenant, upstream) {
      opened.push({ tenant, upstream });
      const observe = <C extends Call, T>(operation: string, work: (call: C) => Promise<T>) =>
        timed(work, (result, seconds) =>
          duration.observe({ tenant, upstream: upstream.id, operation, result }, seconds),
        );
      return {
        ...upstream,
        create: observe("create", (call: CreateRecord) => upstream.create(call)),
        update: observe("update", (call: UpdateRecord) => upstream.update(call)),
        remove: observe("delete", (call: RemoveRecord) => upstream.remove(call)),
        read: observe("read", (call: ReadRecord) => upstream.read(call)),
        lookup: observe("lookup", (call: LookupRecord) => upstream.lookup(call)),
        list: observe("list", (call: ListCall) => upstream.list(call)),
        readHeld: observe("read", (call: ReadRecord) => upstream.readHeld(call)),
        observe: observe("read", (call: ReadRecord) => upstream.observe(call)),
        observePage: observe("list", (call: ListCall) => upstream.observePage(call)),
      };
    },
  };
}

function registerBreakerGauge(
  registry: Registry,
  opened: readonly { tenant: string; upstream: Upstream }[],
): void {
  const gauge = new Gauge({
    name: "tidegate_upstream_breaker_open",
    help: "1 while this process calls the upstream only to find out whether it is back, else 0.",
    labelNames: ["tenant", "upstream"],
    registers: [],
    collect() {
      for (const { tenant, upstream } of opened)
        this.set({ tenant, upstream: upstream.id }, upstream.circuitState() === "closed" ? 0 : 1);
    },
  });
  registry.registerMetric(gauge);
}

/** Times what was sent; the wait for a place, and calls that never start, do not count. */
function timed<C extends Call, T>(
  work: (call: C) => Promise<T>,
  observe: (result: "answered" | "failed", seconds: number) => void,
): (call: C) => Promise<T> {
  return async (call) => {
    let startedAt: number | undefined;
    const mayStart = (): void => {
      call.mayStart?.();
      startedAt = performance.now();
    };
    const end = (result: "answered" | "failed"): void => {
      if (startedAt !== undefined) observe(result, (performance.now() - startedAt) / 1_000);
    };
    try {
      const result = await work({ ...call, mayStart });
      end("answered");
      return result;
    } catch (error) {
      end("failed");
      throw error;
    }
  };
}

interface LaneFigures {
  due: number;
  oldestHeadSeconds: number;
}

/** Several scrapers, and the gauges of one scrape, share a look. */
const figuresAgeMsMax = 5_000;

function registerLaneGauges(registry: Registry, db: Kysely<Database>, tenantIds: readonly string[]): void {
  let looked = { at: -Infinity, figures: Promise.resolve(new Map<string, LaneFigures>()) };
  const look = async (): Promise<Map<string, LaneFigures>> => {
    const now = performance.now();
    if (now - looked.at > figuresAgeMsMax) looked = { at: now, figures: readFigures(db, tenantIds) };
    return await looked.figures;
  };
  const gauge = (name: string, help: string, pick: (figures: LaneFigures) => number): void => {
    const own = new Gauge({
      name,
      help,
      labelNames: ["tenant"],
      registers: [],
      async collect() {
        // With the database away there is nothing to tell; the other metrics still are.
        const figures = await look().catch(() => undefined);
        this.reset();
        for (const [tenant, found] of figures ?? []) this.set({ tenant }, pick(found));
      },
    });
    registry.registerMetric(own);
  };
  gauge("tidegate_lanes_due", "Lanes of clients with something to replay now.", ({ due }) => due);
  gauge(
    "tidegate_oldest_head_age_seconds",
    "How long ago the oldest mutation was accepted that is at the head of a lane; 0 when there is none.",
    ({ oldestHeadSeconds }) => oldestHeadSeconds,
  );
}

async function readFigures(
  db: Kysely<Database>,
  tenantIds: readonly string[],
): Promise<Map<string, LaneFigures>> {
  const figures = new Map<string, LaneFigures>();
  for (const tenantId of tenantIds) {
    const { rows } = await inTenant(db, tenantId, (trx) =>
      sql<{ due: number; oldest_head_seconds: number }>`
        select count(*) filter (where l.due_at <= now())::integer as due,
          coalesce(extract(epoch from now() - min(head.received_at)), 0)::float8 as oldest_head_seconds
        from (
          select client_id, position, due_at from lane
          where tenant_id = ${tenantId} and due_at is not null and not aside and partition is null
          union all
          select client_id, position, due_at from lane
          where tenant_id = ${tenantId} and aside and partition is null
        ) l
        left join lateral (
          select received_at from inbox_block b
          where b.tenant_id = ${tenantId} and b.client_id = l.client_id and b.last_seq > l.position
          order by b.last_seq limit 1
        ) head on true`.execute(trx),
    );
    const [row] = rows;
    if (row) figures.set(tenantId, { due: row.due, oldestHeadSeconds: row.oldest_head_seconds });
  }
  return figures;
}
