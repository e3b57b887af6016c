import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { configOf, tenantId } from "../config.ts";
import type { Cleanup } from "./cleanup.ts";
import { startGatewayProcess, type GatewayProcess } from "./gateway-process.ts";
import { freePort } from "./ports.ts";
import { startPostgres, type Postgres } from "./postgres.ts";
import { startRedis, type RedisServer } from "./redis.ts";
import { startUpstreamProcess, type UpstreamProcess } from "./upstream-process.ts";

export type Backend = "redis" | "postgres";

/** Everything that one run stands on, and that its faults break. */
export interface World {
  backend: Backend;
  postgres: Postgres;
  redis: RedisServer | undefined;
  upstream: UpstreamProcess;
  apiUrl: string;
  /** By place: a worker that is killed is followed by another in the same place. */
  workers: Map<number, GatewayProcess>;
  startWorker: (place: number, clockShiftMs?: number) => Promise<void>;
  /** Nobody writes afterwards. */
  stopWorkers: () => Promise<void>;
  restartApi: () => Promise<void>;
  log: { process: string; at: number; line: string }[];
  /** Processes that ended without being killed by the run. */
  crashes: string[];
}

export async function openWorld(
  { backend, seed, workers }: { backend: Backend; seed: number; workers: number },
  cleanup: Cleanup,
): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-faults-"));
  cleanup.add(async () => await rm(dir, { recursive: true, force: true }));
  const postgres = await startPostgres(cleanup);
  // The oracle counts the feed's rows; what pruning does is shown by the feed's schedules.
  await postgres.rows(
    "insert into pruning (tenant_id, kind, due_at) values ($1, 'feed', now() + interval '1 year')",
    [tenantId],
  );
  const redis = backend === "redis" ? await startRedis(cleanup) : undefined;
  const upstream = await startUpstreamProcess({ journalPath: join(dir, "journal"), seed }, cleanup);
  const configPath = join(dir, "tidegate.yaml");
  await writeFile(configPath, JSON.stringify(configOf(upstream.url)));

  const log: World["log"] = [];
  const crashes: string[] = [];
  const apiPort = await freePort();
  const common = { databaseUrl: postgres.serviceUrl, redisUrl: redis?.url, configPath };
  const start = async (own: {
    name: string;
    port: number;
    clockShiftMs?: number;
    role: "api" | "worker";
  }): Promise<GatewayProcess> =>
    await startGatewayProcess({
      ...common,
      ...own,
      onLine: (line) => void log.push({ process: own.name, at: Date.now(), line }),
      onCrash: (name, how) => void crashes.push(`${name}: ${how}`),
    });
  const startApi = async (): Promise<GatewayProcess> =>
    await start({ name: "api", port: apiPort, role: "api" });
  let api = await startApi();
  const running = new Map<number, GatewayProcess>();
  let count = 0;
  cleanup.add(async () => {
    await Promise.all([api, ...running.values()].map(async (process) => await process.kill()));
  });
  const startWorker: World["startWorker"] = async (place, clockShiftMs = 0) => {
    running.set(place, await start({ name: `worker-${++count}`, port: 0, role: "worker", clockShiftMs }));
  };
  for (let place = 0; place < workers; place++) await startWorker(place);
  return {
    backend,
    postgres,
    redis,
    upstream,
    apiUrl: `http://127.0.0.1:${apiPort}`,
    workers: running,
    startWorker,
    stopWorkers: async () => void (await Promise.all([...running.values()].map((worker) => worker.stop()))),
    async restartApi() {
      await api.kill();
      api = await startApi();
    },
    log,
    crashes,
  };
}
