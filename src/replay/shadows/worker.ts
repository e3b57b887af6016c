import { partitions } from "../../change-feed/applied-log.ts";
import type { UpstreamConfig } from "../../platform/config/schema.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import type { OverdueLane } from "../due.ts";
import { shadowQueue } from "../wake.ts";
import { startReplayWorker, type ReplayDeps, type ReplayWorker, type Served } from "../worker.ts";
import { addInTime } from "./adding.ts";
import { follower } from "./follow.ts";
import { laneIdOf } from "./log.ts";
import { readOverdueShadowLanes } from "./overdue.ts";
import { createPartners } from "./partners.ts";

/** A shadow with the primary that it follows. */
export interface Shadow {
  tenantId: string;
  upstream: Upstream;
  primary: UpstreamConfig;
}

export interface ShadowDeps extends Omit<ReplayDeps, "queue" | "served" | "readOverdue" | "onRecord"> {
  shadows: readonly Shadow[];
  /** The secrets that values of what shadows held before are kept under, newest first. */
  secrets: readonly string[];
}

/** Starts draining the shadows' lanes; those that are new are added beside it. */
export function startShadowWorker({ shadows, secrets, ...deps }: ShadowDeps): ReplayWorker {
  const served = shadows.map(({ tenantId, upstream, primary }): Served => {
    const laneIds = Array.from({ length: partitions }, (_, n) => laneIdOf(tenantId, upstream.id, n));
    const partners = createPartners(deps.db, { tenantId, upstreamId: upstream.id }, secrets);
    return { tenantId, upstream, laneIds, replay: follower({ primary, partners }) };
  });

  async function readOverdue(tenantId: string): Promise<OverdueLane[]> {
    const own = served.filter((one) => one.tenantId === tenantId);
    return await readOverdueShadowLanes(
      deps.db,
      tenantId,
      own.map(({ upstream }) => upstream.id),
    );
  }

  const stop = new AbortController();
  const adding = shadows.map(async (shadow) => {
    const isAdded = await addInTime({ ...deps, secrets }, shadow, stop.signal);
    const { laneIds = [] } = served.find(({ upstream }) => upstream === shadow.upstream) ?? {};
    if (isAdded) for (const laneId of laneIds) deps.wake(shadow.tenantId, laneId);
  });
  const worker = startReplayWorker({ ...deps, queue: shadowQueue, served, readOverdue });
  return {
    async close() {
      stop.abort();
      await worker.close();
      await Promise.all(adding);
    },
  };
}
