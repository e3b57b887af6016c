import type { Logger } from "pino";

import type { JobQueue } from "../platform/queues.ts";

export const replayQueue = "replay";

/** Says "look at this lane". Best effort: what gets lost is found by the sweeper. */
export type Wake = (tenantId: string, laneId: string) => void;

/**
 * Wakes lanes by jobs, at most one waiting and one active for each lane. The wakes of one turn of the event loop go out
 * together.
 */
export function createWake(queue: JobQueue, log: Logger): Wake {
  let waiting = new Map<string, { tenantId: string; laneId: string }>();

  async function send(): Promise<void> {
    const lanes = [...waiting.values()];
    waiting = new Map();
    try {
      await queue.addBulk(lanes.map(toJob));
    } catch (error) {
      log.warn(
        { lanes: lanes.length, error: (error as Error).message },
        "lanes could not be woken; the sweeper will",
      );
    }
  }

  return (tenantId, laneId) => {
    if (waiting.size === 0) setImmediate(() => void send());
    waiting.set(laneJobId(tenantId, laneId), { tenantId, laneId });
  };
}

/** Names a lane among jobs. */
export function laneJobId(tenantId: string, laneId: string): string {
  return `${tenantId}/${laneId}`;
}

function toJob({ tenantId, laneId }: { tenantId: string; laneId: string }) {
  return {
    name: "lane",
    data: { tenantId, laneId },
    opts: {
      deduplication: { id: laneJobId(tenantId, laneId), keepLastIfActive: true },
      // A lane is tried for as long as it takes; when, Postgres decides.
      attempts: Number.MAX_SAFE_INTEGER,
      backoff: { type: "lane" },
      removeOnComplete: true,
      removeOnFail: 1_000,
    },
  };
}
