import { setTimeout as pause } from "node:timers/promises";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import type { JobQueue, QueueBackend } from "../platform/queues.ts";
import type { Database, PruningKind } from "../platform/schema.ts";
import type { PruningMetrics } from "./metrics.ts";
import { pruneBatch, readDue, type Pruner } from "./round.ts";

export const maintenanceQueue = "maintenance";

export interface MaintenanceDeps {
  db: Kysely<Database>;
  backend: QueueBackend;
  log: Logger;
  tenantIds: readonly string[];
  pruners: readonly Pruner[];
  metrics: PruningMetrics;
}

export interface MaintenanceWorker {
  /** Ends after the batch in hand. */
  close: () => Promise<void>;
}

/** So long a tenant's round goes on before another's turn comes. */
const sliceTimeMs = 10_000;
const lookEveryMs = 600_000;

/**
 * Prunes what is due, one batch after the other, with a rest after each as long as it took: at most half of one
 * connection's time, whatever there is to do. Jobs say what to look at; what is due, and how far it has come, Postgres
 * says, so nothing is lost with a job or a worker, and two workers don't have the same batch.
 */
export function startMaintenance(deps: MaintenanceDeps): MaintenanceWorker {
  const { backend, pruners, log } = deps;
  const queue = backend.queue(maintenanceQueue);
  const stop = new AbortController();
  const worker = backend.worker(
    maintenanceQueue,
    async ({ data: { tenantId = "", kind = "" } }) => {
      const pruner = pruners.find((one) => one.kind === kind);
      if (!pruner || !deps.tenantIds.includes(tenantId)) return;
      const isDone = await pruneSlice(deps, tenantId, pruner, stop.signal);
      if (!isDone && !stop.signal.aborted) await queue.addBulk([toJob(tenantId, pruner.kind)]);
    },
    { concurrency: 1 },
  );
  const look = startLook(deps, queue);
  return {
    async close() {
      look.stop();
      stop.abort();
      await worker.close();
      log.info({ queue: maintenanceQueue }, "maintenance has stopped");
    },
  };
}

/** Whether there is nothing more to do at present. */
async function pruneSlice(
  { db, metrics }: MaintenanceDeps,
  tenantId: string,
  pruner: Pruner,
  signal: AbortSignal,
): Promise<boolean> {
  const endsAt = performance.now() + sliceTimeMs;
  while (!signal.aborted && performance.now() < endsAt) {
    const begunAt = performance.now();
    const batch = await pruneBatch(db, tenantId, pruner);
    if (batch) metrics.pruned(tenantId, batch.pruned);
    if (!batch?.next) return true;
    await pause(performance.now() - begunAt, undefined, { signal }).catch(() => undefined);
  }
  return false;
}

/** Asks now and then what is due, and makes jobs of it. */
function startLook({ db, tenantIds, pruners, log }: MaintenanceDeps, queue: JobQueue): { stop: () => void } {
  const kinds = pruners.map(({ kind }) => kind);
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  async function look(): Promise<void> {
    for (const tenantId of tenantIds) {
      if (isStopped) return;
      try {
        const due = await readDue(db, tenantId, kinds);
        if (due.length > 0) await queue.addBulk(due.map((kind) => toJob(tenantId, kind)));
      } catch (error) {
        log.warn(
          { tenantId, err: error },
          "what is to be pruned could not be looked for; the next look will",
        );
      }
    }
    // Workers that were started together need not all ask at the same moment.
    if (!isStopped) timer = setTimeout(() => void look(), lookEveryMs * (0.5 + Math.random()));
  }

  void look();
  return {
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}

function toJob(tenantId: string, kind: PruningKind) {
  return {
    name: "prune",
    data: { tenantId, kind },
    opts: {
      deduplication: { id: `${tenantId}/${kind}`, keepLastIfActive: true },
      removeOnComplete: true,
      removeOnFail: true,
    },
  };
}
