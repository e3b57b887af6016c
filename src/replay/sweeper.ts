import type { ReplayDeps } from "./worker.ts";

const everyMs = 5_000;
/** By now an ordinary wake would have been heard; what absorbed it has to be overcome. */
const longOverdueMs = 5_000;
const urgentMax = 100;

/**
 * Wakes the due lanes that nobody woke: the word was lost, the queue was emptied, an owner died and its job still counts
 * as active.
 */
export function startSweeper({
  wake,
  log,
  served,
  readOverdue,
}: Pick<ReplayDeps, "wake" | "log" | "served" | "readOverdue">): { stop: () => void } {
  const tenantIds = new Set(served.map(({ tenantId }) => tenantId));
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  async function sweepTenant(tenantId: string): Promise<void> {
    const lanes = await readOverdue(tenantId);
    const urgent = lanes.filter((lane) => lane.overdueMs > longOverdueMs).slice(0, urgentMax);
    for (const lane of lanes) if (!urgent.includes(lane)) wake(tenantId, lane.laneId);
    await Promise.all(urgent.map(({ laneId }) => wake.now(tenantId, laneId)));
  }

  async function sweep(): Promise<void> {
    for (const tenantId of tenantIds) {
      try {
        await sweepTenant(tenantId);
      } catch (error) {
        log.warn({ tenantId, err: error }, "due lanes could not be looked for; the next sweep will");
      }
    }
    // Workers that were started together need not all ask at the same moment.
    if (!isStopped) timer = setTimeout(() => void sweep(), everyMs * (0.5 + Math.random()));
  }

  void sweep();
  return {
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
