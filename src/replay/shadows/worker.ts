import { partitions } from "../../change-feed/applied-log.ts";
import type { UpstreamConfig } from "../../platform/config/schema.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import type { OverdueLane } from "../due.ts";
import { shadowQueue } from "../wake.ts";
import { startReplayWorker, type ReplayDeps, type ReplayWorker, type Served } from "../worker.ts";
import { follower } from "./follow.ts";
import { laneIdOf } from "./log.ts";
import { readOverdueShadowLanes } from "./overdue.ts";
import { addShadow } from "./register.ts";

/** A shadow with the primary that it follows. */
export interface Shadow {
  tenantId: string;
  upstream: Upstream;
  primary: UpstreamConfig;
}

export interface ShadowDeps extends Omit<ReplayDeps, "queue" | "served" | "readOverdue" | "onRecord"> {
  shadows: readonly Shadow[];
}

/** Starts draining the shadows' lanes; those that are new are added by the first sweep. */
export function startShadowWorker({ shadows, ...deps }: ShadowDeps): ReplayWorker {
  const served = shadows.map(({ tenantId, upstream, primary }): Served => {
    const laneIds = Array.from({ length: partitions }, (_, n) => laneIdOf(tenantId, upstream.id, n));
    return { tenantId, upstream, laneIds, replay: follower(primary) };
  });
  const added = new Set<Shadow>();

  async function readOverdue(tenantId: string): Promise<OverdueLane[]> {
    const own = shadows.filter((shadow) => shadow.tenantId === tenantId);
    for (const shadow of own) {
      if (added.has(shadow)) continue;
      const { upstream, primary } = shadow;
      await addShadow(deps.db, { tenantId, upstreamId: upstream.id }, { shadow: upstream.config, primary });
      added.add(shadow);
    }
    return await readOverdueShadowLanes(
      deps.db,
      tenantId,
      own.map(({ upstream }) => upstream.id),
    );
  }

  return startReplayWorker({ ...deps, queue: shadowQueue, served, readOverdue });
}
