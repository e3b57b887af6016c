import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";

import type { Cleanup } from "./cleanup.ts";
import { freePort } from "./ports.ts";

/** A Redis of the run's own, at one address, that forgets everything when it is restarted. */
export interface RedisServer {
  url: string;
  flush: () => Promise<void>;
  restart: () => Promise<void>;
  /** Hears nothing for so long. */
  freeze: (ms: number) => Promise<void>;
}

export function hasRedis(): boolean {
  return spawnSync("redis-server", ["--version"]).status === 0;
}

export async function startRedis(cleanup: Cleanup): Promise<RedisServer> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-faults-redis-"));
  cleanup.add(async () => await rm(dir, { recursive: true, force: true }));
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  const args = [
    "--bind",
    "127.0.0.1",
    "--port",
    String(port),
    "--dir",
    dir,
    "--save",
    "",
    "--appendonly",
    "no",
  ];
  const start = async (): Promise<ChildProcess> => {
    const child = spawn("redis-server", args, { stdio: "ignore" });
    await once(child, "spawn");
    await untilReachable(url);
    return child;
  };
  let server = await start();
  const stop = async (): Promise<void> => {
    const ended = once(server, "exit");
    if (server.exitCode === null && server.kill("SIGKILL")) await ended;
  };
  cleanup.add(stop);
  return {
    url,
    flush: async () => await withRedis(url, async (redis) => void (await redis.flushall())),
    async restart() {
      await stop();
      server = await start();
    },
    async freeze(ms) {
      server.kill("SIGSTOP");
      await delay(ms);
      server.kill("SIGCONT");
    },
  };
}

async function untilReachable(url: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await withRedis(url, async (redis) => void (await redis.ping()));
    } catch (error) {
      if (tries === 100) throw error;
      await delay(50);
    }
  }
}

async function withRedis(url: string, work: (redis: Redis) => Promise<void>): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
  redis.on("error", () => undefined);
  try {
    await redis.connect();
    await work(redis);
  } finally {
    redis.disconnect();
  }
}
