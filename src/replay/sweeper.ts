import { readOverdueLanes } from "./due.ts";
import type { ReplayDeps } from "./worker.ts";

const everyMs = 5_000;
/** A lane whose wake is on its way is not overdue yet. */
const overdueMs = 2_000;
const lanesMax = 1_000;

/** Wakes the due lanes that nobody woke: the word was lost, the queue was emptied, an owner died. */
export function startSweeper({
  db,
  wake,
  log,
  primaries,
}: Pick<ReplayDeps, "db" | "wake" | "log" | "primaries">): { stop: () => void } {
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  async function sweep(): Promise<void> {
    try {
      for (const tenantId of primaries.keys()) {
        const lanes = await readOverdueLanes(db, tenantId, { overdueMs, limit: lanesMax });
        for (const laneId of lanes) wake(tenantId, laneId);
      }
    } catch (error) {
      log.warn({ err: error }, "due lanes could not be looked for; the next sweep will");
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
