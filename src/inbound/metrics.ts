import { Counter, Gauge, type Registry } from "prom-client";

import type { RecordWrite } from "../change-feed/write.ts";

/** What asking primaries for others' changes tells Prometheus. The labels are names out of the configuration, and closed lists. */
export interface InboundMetrics {
  taken: (
    tenantId: string,
    upstreamId: string,
    taken: { written: readonly RecordWrite[]; unreadable: number },
  ) => void;
  concluded: (tenantId: string, upstreamId: string, kind: "poll" | "sweep", isDoubtful: boolean) => void;
  failed: (tenantId: string, upstreamId: string) => void;
}

export function createInboundMetrics(registry: Registry): InboundMetrics {
  const registers = [registry];
  const labelNames = ["tenant", "upstream"] as const;
  const records = new Counter({
    name: "tidegate_inbound_records_total",
    help: "Records that others changed in a primary: changed, adopted (by the temp ID of an open create), deleted, or unreadable.",
    labelNames: [...labelNames, "kind"],
    registers,
  });
  const failed = new Counter({
    name: "tidegate_inbound_failures_total",
    help: "Questions for others' changes that a primary did not answer usefully.",
    labelNames,
    registers,
  });
  const concludedAt = new Gauge({
    name: "tidegate_inbound_concluded_seconds",
    help: "When this process last came to the end of a round through a primary's changes (poll) or records (sweep), in Unix time.",
    labelNames: [...labelNames, "kind"],
    registers,
  });
  const doubtful = new Counter({
    name: "tidegate_inbound_doubtful_sweeps_total",
    help: "Sweeps that lacked so many records that none was taken for deleted.",
    labelNames,
    registers,
  });
  return {
    taken(tenant, upstream, { written, unreadable }) {
      for (const record of written) records.inc({ tenant, upstream, kind: kindOf(record) });
      if (unreadable > 0) records.inc({ tenant, upstream, kind: "unreadable" }, unreadable);
    },
    concluded(tenant, upstream, kind, isDoubtful) {
      concludedAt.set({ tenant, upstream, kind }, Date.now() / 1_000);
      if (isDoubtful) doubtful.inc({ tenant, upstream });
    },
    failed: (tenant, upstream) => failed.inc({ tenant, upstream }),
  };
}

function kindOf({ data, tempId }: RecordWrite): "deleted" | "adopted" | "changed" {
  if (data === null) return "deleted";
  return tempId === null ? "changed" : "adopted";
}
