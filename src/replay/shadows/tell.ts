import { partitionOf } from "../../change-feed/applied-log.ts";
import type { RecordKey } from "../../records/record.ts";
import type { Wake } from "../wake.ts";
import { laneIdOf } from "./log.ts";

/** A busy primary tells its shadows this often. What is not told is found by the sweeper. */
const gatherMs = 50;

/**
 * Tells a tenant's shadows of changed records, after the primary's commit and without anybody waiting for it.
 *
 * @param upstreamIds of each tenant's shadows.
 */
export function createShadowTeller(
  wake: Wake,
  upstreamIds: ReadonlyMap<string, readonly string[]>,
): (tenantId: string, key: RecordKey) => void {
  const changed = new Map<string, { tenantId: string; laneId: string }>();

  function tell(): void {
    for (const { tenantId, laneId } of changed.values()) wake(tenantId, laneId);
    changed.clear();
  }

  return (tenantId, key) => {
    const shadows = upstreamIds.get(tenantId);
    if (!shadows) return;
    if (changed.size === 0) setTimeout(tell, gatherMs).unref();
    const partition = partitionOf(key);
    for (const upstreamId of shadows) {
      const laneId = laneIdOf(tenantId, upstreamId, partition);
      changed.set(laneId, { tenantId, laneId });
    }
  };
}
