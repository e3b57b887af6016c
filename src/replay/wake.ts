import type { Logger } from "pino";

import type { JobQueue } from "../platform/queues.ts";

export const replayQueue = "replay";
export const shadowQueue = "shadow";

/** Says "look at this lane". Best effort: what gets lost is found by the sweeper. */
export interface Wake {
  /** Absorbed while the lane's job waits, is delayed by a backoff, or (once more) is active. */
  (tenantId: string, laneId: string): void;
  /**
   * Is not absorbed: brings forward a job that is delayed by a backoff, and comes on top of one that is active, which may
   * be about to be delayed or have lost its worker. (Two jobs of a lane do no harm: one of them can't claim it.)
   */
  now: (tenantId: string, laneId: string) => Promise<void>;
}

/** In a busy moment wakes are gathered for this long, so that the queue gets few large commands instead of many small ones. */
const gatherMs = 5;

/**
 * Wakes lanes by jobs, at most one waiting and one active for each lane. A wake goes out at once; those that follow
 * closely go together.
 */
export function createWake(queue: JobQueue, log: Logger): Wake {
  let waiting = new Map<string, LaneName>();
  let sentAt = -Infinity;

  async function send(): Promise<void> {
    const lanes = [...waiting.values()];
    waiting = new Map();
    sentAt = performance.now();
    try {
      await queue.addBulk(lanes.map(toJob));
    } catch (error) {
      log.warn({ lanes: lanes.length, err: error }, "lanes could not be woken; the sweeper will");
    }
  }

  const wake = (tenantId: string, laneId: string): void => {
    if (waiting.size === 0) {
      const pauseMs = sentAt + gatherMs - performance.now();
      if (pauseMs > 0) setTimeout(() => void send(), pauseMs);
      else setImmediate(() => void send());
    }
    waiting.set(jobName(tenantId, laneId), { tenantId, laneId });
  };

  async function now(tenantId: string, laneId: string): Promise<void> {
    const name = jobName(tenantId, laneId);
    const jobId = await queue.getDeduplicationJobId(name);
    const job = jobId ? await queue.getJob(jobId) : undefined;
    const state = await job?.getState();
    if (state === "delayed" && (await isPromoted(job))) return;
    if (state !== "waiting") await queue.removeDeduplicationKey(name);
    wake(tenantId, laneId);
  }

  return Object.assign(wake, { now });
}

/** False when its time came before we did. */
async function isPromoted(job: Awaited<ReturnType<JobQueue["getJob"]>>): Promise<boolean> {
  return await (job?.promote() ?? Promise.reject(new Error("no such job"))).then(
    () => true,
    () => false,
  );
}

interface LaneName {
  tenantId: string;
  laneId: string;
}

/** Names a lane among jobs. */
function jobName(tenantId: string, laneId: string): string {
  return `${tenantId}/${laneId}`;
}

function toJob({ tenantId, laneId }: LaneName) {
  return {
    name: "lane",
    data: { tenantId, laneId },
    opts: {
      deduplication: { id: jobName(tenantId, laneId), keepLastIfActive: true },
      // A lane is tried for as long as it takes; when, Postgres decides.
      attempts: 2 ** 31 - 1,
      backoff: { type: "lane" },
      removeOnComplete: true,
      removeOnFail: true,
      // Each backoff would add one.
      stackTraceLimit: 0,
    },
  };
}
