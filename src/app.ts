import type { Kysely } from "kysely";
import { sql } from "kysely";
import type { Logger } from "pino";
import type { Registry } from "prom-client";

import type { Polled } from "./change-feed/first-reading.ts";
import { createReadNext } from "./change-feed/follow.ts";
import type { ClientRead } from "./change-feed/pull.ts";
import { feedRoutes } from "./change-feed/routes.ts";
import { ChangeSchema } from "./change-feed/schema.ts";
import { snapshotRoutes } from "./change-feed/snapshot-routes.ts";
import { streamRoutes } from "./change-feed/stream-routes.ts";
import { createWaiters } from "./change-feed/waiters.ts";
import { registerClientAuth } from "./http/client-auth.ts";
import { registerHealth } from "./http/health.ts";
import { registerMetrics } from "./http/metrics.ts";
import { registerOpenapi } from "./http/openapi.ts";
import { registerOpsAuth } from "./http/ops-auth.ts";
import { createHttpServer, type HttpServer } from "./http/server.ts";
import { idMapRoutes } from "./id-map/routes.ts";
import { eventRoutes } from "./inbound/events-routes.ts";
import { createInbox } from "./inbox/append.ts";
import { MutationResultSchema } from "./inbox/result-schema.ts";
import { mutationRoutes } from "./inbox/routes.ts";
import type { OnTold } from "./inbox/told.ts";
import { capabilityRoutes } from "./ingest/capabilities.ts";
import { ingestRoutes } from "./ingest/routes.ts";
import { operationsRoutes } from "./ops/operations-routes.ts";
import { pushRoutes } from "./ops/push-routes.ts";
import { registerQueuesBoard } from "./ops/queues-board.ts";
import { shadowRoutes } from "./ops/shadow-routes.ts";
import { unreadRoutes } from "./ops/unread-routes.ts";
import type { Config } from "./platform/config/schema.ts";
import type { Hints } from "./platform/hints.ts";
import type { InstallationWatch } from "./platform/installation.ts";
import type { PayloadCodec } from "./platform/payload-codec.ts";
import type { JobQueue } from "./platform/queues.ts";
import type { Database } from "./platform/schema.ts";
import { version } from "./platform/version.ts";
import { clientRoutes } from "./push/routes.ts";
import type { Wake } from "./replay/wake.ts";
import { polledEntities, primaryOf } from "./upstream/primary.ts";

export interface AppDeps {
  role: "all" | "api" | "worker";
  config: Config;
  db: Kysely<Database>;
  codec: PayloadCodec;
  hints: Hints;
  wake: Wake;
  /** Of the shadows' lanes, if there are shadows. */
  wakeShadow: Wake | undefined;
  /** Of what is asked of primaries. */
  wakeInbound: Wake;
  queues: readonly JobQueue[];
  metrics: Registry;
  log: Logger;
  cursorSecrets: string[];
  fingerprintSecrets: string[];
  /** Told how far clients read. */
  onRead?: ((read: ClientRead) => void) | undefined;
  /** Told which refusals clients are told by name. */
  onTold: OnTold;
  installation: Pick<InstallationWatch, "epoch" | "assertServed">;
  /** Aborted when the process begins to stop. */
  stopping: AbortSignal;
}

/**
 * The HTTP side: plugins in the order of the data's way. A worker has only health and metrics. Nothing listens yet.
 */
export async function buildApp(deps: AppDeps): Promise<HttpServer> {
  const { config, db, log, stopping } = deps;
  const app = await createHttpServer({ logger: log, limits: config.limits, stopping });
  await registerOpenapi(app, { version });
  registerMetrics(app, deps.metrics);
  const database = { name: "database", check: async () => void (await sql`select 1`.execute(db)) };
  const queues = { name: "queues", check: async () => void (await deps.queues[0]?.getJobCounts("waiting")) };
  const recovery = {
    name: "recovery",
    check: async () => await Promise.resolve(deps.installation.assertServed()),
    isNeeded: false,
  };
  registerHealth(app, { checks: [database, queues, recovery], stopping });
  if (deps.role !== "worker") await registerApi(app, deps);
  return app;
}

async function registerApi(app: HttpServer, deps: AppDeps): Promise<void> {
  const { config } = deps;
  const requireClient = await registerClientAuth(app, { tenants: config.tenants });
  const { epoch } = deps.installation;
  const waiters = createWaiters({ ...deps, lookEveryMs: config.follow.lookEveryMs });
  app.addHook("onClose", () => waiters.close());
  const following = { waiters, readNext: createReadNext(deps) };
  const polledOf = (tenantId: string): Polled => polledIn(config, tenantId);
  const inbox = createInbox(deps.db, deps.codec);
  const shared = { ...deps, epoch, polledOf, requireClient, inbox, ...following };
  app.addSchema(MutationResultSchema);
  app.addSchema(ChangeSchema);
  await app.register(capabilityRoutes, shared);
  await app.register(ingestRoutes, shared);
  await app.register(mutationRoutes, shared);
  await app.register(idMapRoutes, shared);
  await app.register(snapshotRoutes, shared);
  await app.register(feedRoutes, shared);
  await app.register(streamRoutes, shared);
  await app.register(eventRoutes, deps);
  await app.register(clientRoutes, shared);
  if (config.ops) {
    const requireOps = await registerOpsAuth(app, { auth: config.ops.auth });
    await app.register(operationsRoutes, { ...deps, requireOps });
    await app.register(shadowRoutes, { ...deps, requireOps });
    await app.register(pushRoutes, { ...deps, requireOps });
    await app.register(unreadRoutes, { ...deps, requireOps });
    await registerQueuesBoard(app, { queues: deps.queues, requireOps });
  }
}

function polledIn({ tenants }: Config, tenantId: string): Polled {
  const tenant = tenants[tenantId];
  if (!tenant) return { upstreamId: "", entities: [] };
  const { id, upstream } = primaryOf(tenant);
  return { upstreamId: id, entities: polledEntities(upstream) };
}
