import { sql } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { JobData, JobQueue, QueueBackend } from "../platform/queues.ts";
import { lookForNews } from "./look.ts";
import { sendDue, type PushTenant, type SendDeps } from "./send-due.ts";

export const pushQueue = "push";

export interface PushDeps extends SendDeps {
  backend: QueueBackend;
  tenants: readonly PushTenant[];
  /** False while the database is not the one that was served: what its feed says is over. */
  isServed: () => boolean;
}

export interface PushWorker {
  /** Claims nothing more, and waits for the calls in flight. */
  close: () => Promise<void>;
}

/** Between two looks; those at one tenant take no more than a tenth of the time, however many clients it has. */
const lookEveryMsMax = 1_000;
const restPerWork = 9;
/** Looks in a row at one tenant that has much to look through, before the others' turn. */
const looksInRow = 10;
/** So that a few tenants with much to send do not keep the others waiting. */
const sendSliceMs = 5_000;
/** Whoever finds the job of the look gone, by a loss of the queue, puts it there again. */
const ensureEveryMs = 5_000;

/** The look comes back as the same job. */
class LookAgain extends Error {
  readonly inMs: number;
  constructor(inMs: number) {
    super(`looks again in ${Math.ceil(inMs)} ms`);
    this.inMs = inMs;
  }
}

/**
 * Wakes apps: one job looks through all tenants' feeds, again and again, and names the tenants that have pushes to send; a
 * job for each of these sends them. What there is to do is in Postgres; jobs only say "look".
 */
export function startPushWorker(deps: PushDeps): PushWorker {
  const { backend, tenants, log } = deps;
  const queue = backend.queue(pushQueue);
  const stopping = { now: false };
  const lookAtAll = createLook(deps, queue, stopping);
  const worker = backend.worker(
    pushQueue,
    async ({ name, data }) => {
      if (name === "look") throw new LookAgain(await lookAtAll());
      const tenant = tenants.find(({ tenantId }) => tenantId === data["tenantId"]);
      if (tenant) await sendSlice(deps, tenant, stopping);
    },
    {
      concurrency: 1 + Math.min(tenants.length, 64),
      settings: {
        backoffStrategy: (_attempts, _type, error) =>
          error instanceof LookAgain ? Math.ceil(error.inMs) : 1_000,
      },
      maxStalledCount: 2 ** 31 - 1,
      // A look or a slice is short; another worker soon goes on where one died.
      lockDuration: 10_000,
      stalledInterval: 5_000,
    },
  );
  const ensure = (): void => {
    addOnce(queue, "look", "look", {}).catch((error: unknown) => {
      log.warn({ err: error }, "the look for clients to wake could not be started; it is tried again");
    });
  };
  ensure();
  const timer = setInterval(ensure, ensureEveryMs * (0.75 + Math.random() / 2));
  return {
    async close() {
      stopping.now = true;
      clearInterval(timer);
      await worker.close();
      await Promise.all(
        tenants.flatMap(({ services }) => services.map(async (service) => await service.close())),
      );
    },
  };
}

/** Adds a job unless there is one under this ID. */
async function addOnce(queue: JobQueue, name: string, id: string, data: JobData): Promise<void> {
  const known = await queue.getDeduplicationJobId(id);
  // Whoever deletes a job may leave its ID behind, which would absorb all that come.
  if (known !== null && !(await queue.getJob(known))) await queue.removeDeduplicationKey(id);
  await queue.add(name, data, {
    deduplication: { id },
    attempts: 2 ** 31 - 1,
    backoff: { type: "push" },
    removeOnComplete: true,
    removeOnFail: true,
    // Each look would add one.
    stackTraceLimit: 0,
  });
}

/** Looks at all tenants, and tells when to look again. */
function createLook(deps: PushDeps, queue: JobQueue, stopping: { now: boolean }): () => Promise<number> {
  const { tenants, isServed } = deps;
  const restUntil = new Map<string, number>();
  const everyMs = Math.min(lookEveryMsMax, ...tenants.map(({ config }) => config.delayMs / 2));
  return async () => {
    for (const tenant of isServed() ? tenants : []) {
      const began = performance.now();
      if (stopping.now) return 0;
      if (began < (restUntil.get(tenant.tenantId) ?? 0)) continue;
      await lookAt(deps, tenant, queue);
      const ended = performance.now();
      restUntil.set(tenant.tenantId, ended + restPerWork * (ended - began));
    }
    return everyMs;
  };
}

async function lookAt(
  deps: PushDeps,
  { tenantId, config, services }: PushTenant,
  queue: JobQueue,
): Promise<void> {
  const { db, log } = deps;
  try {
    for (let looks = 0; looks < looksInRow; looks++) {
      if (!(await inTenant(db, tenantId, (trx) => lookForNews(trx, tenantId, config)))) break;
    }
    const names = services.map(({ name }) => name);
    if (await hasDue(deps, tenantId, names)) await addOnce(queue, "send", `send/${tenantId}`, { tenantId });
  } catch (error) {
    log.warn({ tenantId, err: error }, "clients to wake could not be looked for; the next look will");
  }
}

async function hasDue({ db }: PushDeps, tenantId: string, services: readonly string[]): Promise<boolean> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ has_due: boolean }>`
      select exists (
        select from unnest(${services}::text[]) as s (name)
        where exists (
          select from push_registration
          where tenant_id = ${tenantId} and service = s.name and due_at <= now()
        ) and not exists (
          select from push_service
          where tenant_id = ${tenantId} and service = s.name and paused_until > now()
        )
      ) as has_due`.execute(trx),
  );
  return rows[0]?.has_due ?? false;
}

async function sendSlice(deps: PushDeps, tenant: PushTenant, stopping: { now: boolean }): Promise<void> {
  const until = performance.now() + sendSliceMs;
  const isOver = (): boolean => stopping.now || performance.now() > until;
  const sending = tenant.services.map(async (service) => await sendDue(deps, tenant, service, isOver));
  const failed = (await Promise.allSettled(sending)).filter(({ status }) => status === "rejected");
  for (const { reason } of failed as PromiseRejectedResult[]) {
    // What is thrown into a job is kept with it.
    deps.log.error(
      { tenantId: tenant.tenantId, err: reason as unknown },
      "pushes could not be sent; they stay due",
    );
  }
}
