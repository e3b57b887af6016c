import { partitions } from "../../change-feed/applied-log.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import type { OverdueLane } from "../due.ts";
import { shadowQueue } from "../wake.ts";
import { startReplayWorker, type ReplayDeps, type ReplayWorker, type Served } from "../worker.ts";
import { startAdding } from "./adding.ts";
import { follower } from "./follow.ts";
import { laneIdOf } from "./log.ts";
import { readOverdueShadowLanes } from "./overdue.ts";
import { createPartners } from "./partners.ts";
import { createStrayLook } from "./strays.ts";

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
  /** When the configuration was read, on the monotonic clock, or somewhat earlier. */
  configReadAt: number;
}

/** Starts draining the shadows' lanes; those that are new are added beside it. */
export function startShadowWorker({ shadows, secrets, configReadAt, ...deps }: ShadowDeps): ReplayWorker {
  const served = shadows.map((shadow): Served => {
    const { tenantId, upstream, primary } = shadow;
    const partners = createPartners(deps.db, { tenantId, upstreamId: upstream.id }, secrets);
    return { tenantId, upstream, laneIds: lanesOf(shadow), replay: follower({ primary, partners }) };
  });
  const adding = startAdding({
    ...deps,
    secrets,
    configReadAt,
    onAdded(shadow) {
      for (const laneId of lanesOf(shadow)) deps.wake(shadow.tenantId, laneId);
    },
  });
  const lookForStrays = createStrayLook(deps.db);

  async function readOverdue(tenantId: string): Promise<OverdueLane[]> {
    const own = shadows.filter((shadow) => shadow.tenantId === tenantId);
    // Each time: a database that was put back to an earlier moment knows nothing of a shadow that is newer.
    for (const shadow of own) adding.look(shadow);
    const upstreamIds = own.map(({ upstream }) => upstream.id);
    const overdue = await readOverdueShadowLanes(deps.db, tenantId, upstreamIds);
    const lanes = own.flatMap((shadow) =>
      lanesOf(shadow).map((laneId) => ({ upstreamId: shadow.upstream.id, laneId })),
    );
    const strays = await lookForStrays(tenantId, lanes);
    return [...overdue, ...strays.map((laneId) => ({ laneId, overdueMs: 0 }))];
  }

  const worker = startReplayWorker({ ...deps, queue: shadowQueue, served, readOverdue });
  return {
    async close() {
      const stopped = adding.stop();
      await worker.close();
      await stopped;
    },
  };
}

function lanesOf({ tenantId, upstream }: Shadow): string[] {
  return Array.from({ length: partitions }, (_, partition) => laneIdOf(tenantId, upstream.id, partition));
}
