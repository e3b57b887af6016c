import { randomUUID } from "node:crypto";

import { CompiledQuery, type Kysely } from "kysely";
import type { Logger } from "pino";

import { buildApp } from "./app.ts";
import { createAnnounce } from "./change-feed/announce.ts";
import { registerUnreadGauges } from "./change-feed/unread-gauges.ts";
import { createReadOutcomes } from "./change-feed/unread.ts";
import type { HttpServer } from "./http/server.ts";
import { createInboundMetrics } from "./inbound/metrics.ts";
import { pollQueue, startInboundWorker } from "./inbound/worker.ts";
import { createPruningMetrics } from "./maintenance/metrics.ts";
import { prunersOf } from "./maintenance/pruners.ts";
import { maintenanceQueue, startMaintenance } from "./maintenance/worker.ts";
import { loadConfig } from "./platform/config/load.ts";
import type { Config } from "./platform/config/schema.ts";
import { assertDatabaseReachable } from "./platform/database-check.ts";
import { openDatabase } from "./platform/db.ts";
import { startEmbeddedPostgres } from "./platform/embedded-postgres.ts";
import type { Environment } from "./platform/environment.ts";
import { startHintListener } from "./platform/hint-listener.ts";
import { createHintSender } from "./platform/hint-sender.ts";
import { createHints } from "./platform/hints.ts";
import { createInstallationWatch, registerRecoveryGauge, type Ask } from "./platform/installation.ts";
import { createMetrics } from "./platform/metrics.ts";
import { migrate } from "./platform/migrate.ts";
import { plainCodec } from "./platform/payload-codec.ts";
import { openQueueBackend } from "./platform/queues.ts";
import { assertSchemaIsCurrent } from "./platform/schema-version.ts";
import type { Database } from "./platform/schema.ts";
import { createPushMetrics } from "./push/metrics.ts";
import { openPush, pushConfigsOf } from "./push/open.ts";
import { createReadPositions } from "./push/read-positions.ts";
import { servicesOf } from "./push/service.ts";
import { pushQueue, startPushWorker } from "./push/worker.ts";
import { readOverdueLanes } from "./replay/due.ts";
import { createReplayMetrics, type ReplayMetrics } from "./replay/metrics.ts";
import { createShadowTeller } from "./replay/shadows/tell.ts";
import { startShadowWorker, type Shadow } from "./replay/shadows/worker.ts";
import { createWake, replayQueue, shadowQueue } from "./replay/wake.ts";
import { startReplayWorker, type Served } from "./replay/worker.ts";
import { openUpstream, type Upstream } from "./upstream/upstream.ts";
import { primaryOf, shadowsOf } from "./upstream/primary.ts";

export interface Runtime {
  app: HttpServer;
  config: Config;
  /** Where the database is: the embedded one's, or the one that was named. */
  databaseUrl: string;
  /** Stops taking requests and lanes, finishes what is in flight, closes everything. Safe to call twice. */
  close: () => Promise<void>;
}

export interface RuntimeOptions {
  environment: Environment;
  /** Where `${VAR}` in the configuration comes from. */
  env: NodeJS.ProcessEnv;
  log: Logger;
}

/**
 * Opens everything a role needs, in the order in which one thing stands on another, and closes it in reverse: also what
 * was already open when a later step fails.
 *
 * @throws {TidegateError} `config-invalid`, `database-unreachable`, `database-version`, `redis-unreachable`,
 * `data-dir-in-use`: the process says so and ends.
 */
export async function openRuntime(options: RuntimeOptions): Promise<Runtime> {
  const closers: (() => Promise<unknown>)[] = [];
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= closeAll(closers));
  try {
    return { ...(await open(options, (closer) => closers.push(closer))), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function closeAll(closers: (() => Promise<unknown>)[]): Promise<void> {
  for (const closer of closers.toReversed()) await closer();
}

async function open(
  { environment, env, log }: RuntimeOptions,
  onClose: (closer: () => Promise<unknown>) => void,
): Promise<Omit<Runtime, "close">> {
  const configReadAt = performance.now();
  const { config, warnings } = loadConfig(environment.configPath, env);
  for (const warning of warnings) log.warn(warning);
  const onError = (error: Error): void => log.warn({ err: error }, "a connection was lost");

  const databaseUrl = environment.databaseUrl ?? (await openEmbedded(environment, log, onClose));
  await assertDatabaseReachable(databaseUrl);
  const installation = createInstallationWatch({ log });
  const db = openDatabase(databaseUrl, {
    poolMax: databaseConnections,
    onError,
    onConnection: (connection) => void installation.look((text, values) => connection.query(text, values)),
  });
  onClose(() => db.destroy());
  await assertSchemaIsCurrent(db, { queuesOnPostgres: environment.redisUrl === undefined });
  onClose(() => Promise.resolve(installation.close()));
  await installation.open(askOf(db));

  const backend = await openQueueBackend({ redisUrl: environment.redisUrl, databaseUrl, onError });
  onClose(() => backend.close());
  const queue = backend.queue(replayQueue);
  const ofShadows = hasShadows(config) ? backend.queue(shadowQueue) : undefined;
  const ofMaintenance = backend.queue(maintenanceQueue);
  const wake = createWake(queue, log);
  const wakeShadow = ofShadows && createWake(ofShadows, log);
  const inboundQueue = backend.queue(pollQueue);
  const wakeInbound = createWake(inboundQueue, log);
  const pushConfigs = pushConfigsOf(config);
  const ofPush = pushConfigs.size > 0 ? backend.queue(pushQueue) : undefined;
  const hints = createHints();
  const from = randomUUID();
  const sender = createHintSender(db, { from, log });
  onClose(() => sender.close());
  const announce = createAnnounce(hints, sender);
  const registry = createMetrics();
  registerRecoveryGauge(registry, installation);

  if (environment.role !== "api") {
    const metrics = createReplayMetrics(registry, { db, upstreamIds: upstreamIds(config) });
    const shared = { db, codec: plainCodec, backend, announce, log, metrics };
    const opening = { config, metrics, log, onClose };
    if (wakeShadow) {
      const worker = startShadowWorker({
        ...shared,
        wake: wakeShadow,
        shadows: openShadows(opening),
        configReadAt,
        secrets: environment.fingerprintSecrets,
      });
      onClose(() => worker.close());
    }
    const served = openPrimaries(opening);
    const tellShadows = wakeShadow && createShadowTeller(wakeShadow, shadowIds(config));
    const inbound = startInboundWorker({
      ...shared,
      wake: wakeInbound,
      asked: served.filter(isAsked).map((one) => ({ ...one, hasShadows: (one.shadowIds ?? []).length > 0 })),
      onRecords(tenantId, records) {
        if (tellShadows) for (const record of records) tellShadows(tenantId, record);
      },
      metrics: createInboundMetrics(registry),
    });
    onClose(() => inbound.close());
    const worker = startReplayWorker({
      ...shared,
      queue: replayQueue,
      wake,
      served,
      readOverdue: (tenantId) => readOverdueLanes(db, tenantId),
      ...(tellShadows && { onRecord: tellShadows }),
    });
    onClose(() => worker.close());
    if (ofPush) {
      const push = startPushWorker({
        ...shared,
        metrics: createPushMetrics(registry, { db, services: servicesOf(pushConfigs) }),
        tenants: [...pushConfigs].map(([tenantId, of]) => openPush(tenantId, of)),
        isServed: installation.isServed,
      });
      onClose(() => push.close());
    }
    const tenantIds = Object.keys(config.tenants);
    registerUnreadGauges(registry, { db, tenantIds });
    const maintenance = startMaintenance({
      db,
      backend,
      log,
      tenantIds,
      pruners: prunersOf(config.retention),
      metrics: createPruningMetrics(registry, { db, tenantIds }),
    });
    onClose(() => maintenance.close());
  }
  await backend.ready();

  const reads = ofPush && createReadPositions({ db, log, tenants: pushConfigs });
  onClose(async () => await reads?.close());
  const readOutcomes = createReadOutcomes({ db, log, everyMs: readOutcomesEveryMs });
  onClose(() => readOutcomes.close());

  if (environment.role !== "worker") {
    const onConnection = (ask: Ask): void => void installation.look(ask);
    const heard = { connectionString: databaseUrl, from, log, onConnection, metrics: registry };
    const listener = startHintListener(hints, heard);
    onClose(() => listener.close());
  }
  const stopping = new AbortController();
  const app = await buildApp({
    role: environment.role,
    config,
    db,
    codec: plainCodec,
    hints,
    wake,
    wakeShadow,
    wakeInbound,
    queues: [queue, ofShadows, inboundQueue, ofPush, ofMaintenance].filter((one) => one !== undefined),
    metrics: registry,
    log,
    cursorSecrets: environment.cursorSecrets,
    fingerprintSecrets: environment.fingerprintSecrets,
    onRead(read) {
      reads?.note(read);
      readOutcomes.noteRead(read);
    },
    onTold: (tenantId, told) => readOutcomes.noteTold(tenantId, told),
    installation,
    stopping: stopping.signal,
  });
  onClose(() => {
    stopping.abort();
    return app.close();
  });
  return { app, config, databaseUrl };
}

const databaseConnections = 16;
const readOutcomesEveryMs = 2_000;

/** The embedded server is migrated at each start: nobody else would. */
async function openEmbedded(
  { dataDir }: Environment,
  log: Logger,
  onClose: (closer: () => Promise<unknown>) => void,
): Promise<string> {
  const embedded = await startEmbeddedPostgres({ dataDir, log: (message) => log.info(message) });
  onClose(() => embedded.stop());
  const { applied } = await migrate(embedded.ownerUrl, { serviceRole: "tidegate" });
  if (applied.length > 0) log.info({ applied }, "the database was migrated");
  return embedded.serviceUrl;
}

function askOf(db: Kysely<Database>): Ask {
  return async (text, values = []) => await db.executeQuery(CompiledQuery.raw(text, values));
}

interface Opening {
  config: Config;
  metrics: ReplayMetrics;
  log: Logger;
  onClose: (closer: () => Promise<unknown>) => void;
}

function openPrimaries({ config, ...opening }: Opening): Served[] {
  return Object.entries(config.tenants).map(([tenantId, tenant]) => ({
    tenantId,
    upstream: openObserved(tenantId, primaryOf(tenant), opening),
    shadowIds: shadowsOf(tenant).map(({ id }) => id),
  }));
}

/** Whether the primary says what others change in it, or is asked for that. */
function isAsked({ upstream: { config } }: Served): boolean {
  return config.poll !== undefined || config.events !== undefined;
}

function openShadows({ config, ...opening }: Opening): Shadow[] {
  return Object.entries(config.tenants).flatMap(([tenantId, tenant]) =>
    shadowsOf(tenant).map((shadow) => ({
      tenantId,
      upstream: openObserved(tenantId, shadow, opening),
      primary: primaryOf(tenant).upstream,
    })),
  );
}

/** Opens an upstream with limits and a breaker of its own. */
function openObserved(
  tenantId: string,
  { id, upstream }: ReturnType<typeof primaryOf>,
  { metrics, log, onClose }: Omit<Opening, "config">,
): Upstream {
  const opened = openUpstream(id, upstream, { log: log.child({ tenantId }) });
  onClose(() => opened.close());
  return metrics.observed(tenantId, opened);
}

function upstreamIds({ tenants }: Config): Map<string, string[]> {
  return new Map(
    Object.entries(tenants).map(([tenantId, { upstreams }]) => [tenantId, Object.keys(upstreams)]),
  );
}

function hasShadows(config: Config): boolean {
  return shadowIds(config).size > 0;
}

/** By tenant, for those that have one. */
function shadowIds(config: Config): Map<string, string[]> {
  return new Map(
    Object.entries(config.tenants)
      .map(([tenantId, tenant]): [string, string[]] => [tenantId, shadowsOf(tenant).map(({ id }) => id)])
      .filter(([, ids]) => ids.length > 0),
  );
}
