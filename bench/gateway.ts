import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { jwtSecret } from "./phones.ts";
import { freePort } from "./servers.ts";

export interface GatewayOptions {
  role: "api" | "worker";
  databaseUrl: string;
  /** Without it, the queues are in the database. */
  redisUrl: string | undefined;
  upstreamUrl: string;
  upstreamConcurrency: number;
  cpuProfDir: string | undefined;
  /** What the configuration says of activities besides. */
  activity?: object;
}

export interface Gateway {
  url: string;
  /** Stops it as a signal of the system does, and waits until it has ended. */
  stop: () => Promise<void>;
}

export const cursorSecret = "the secret of the benchmark's cursors";

/** The scope of one user's records. */
export function scopeOf(sub: string): string {
  return `user:${sub}`;
}

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));

/** Starts the gateway as `npm start` does, in a process of its own, with the logs that production would write. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-bench-gateway-"));
  const configPath = join(dir, "tidegate.yaml");
  await writeFile(configPath, JSON.stringify(configOf(options)));
  const port = await freePort();
  const log = openSync(join(dir, "log"), "w");
  const { cpuProfDir, databaseUrl, redisUrl, role } = options;
  const profiling = cpuProfDir === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${cpuProfDir}`];
  const gateway = spawn(process.execPath, [...profiling, main], {
    stdio: ["ignore", log, "inherit"],
    env: {
      PATH: process.env["PATH"],
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      ...(redisUrl !== undefined && { REDIS_URL: redisUrl }),
      TIDEGATE_CONFIG: configPath,
      TIDEGATE_ROLE: role,
      TIDEGATE_CURSOR_SECRET: cursorSecret,
      TIDEGATE_FINGERPRINT_SECRET: "the secret of the benchmark's fingerprints",
    },
  });
  closeSync(log);
  const ended = once(gateway, "exit");
  // For a run that is interrupted: nobody waits for promises then.
  const kill = (): void => void gateway.kill("SIGKILL");
  process.once("exit", kill);
  const stop = async (): Promise<void> => {
    gateway.kill("SIGTERM");
    await ended;
    process.off("exit", kill);
    await rm(dir, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  const failed = ended.then(() => Promise.reject(new Error(`the gateway (${role}) has ended`)));
  failed.catch(() => undefined);
  try {
    await Promise.race([whenReady(url), failed]);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

async function whenReady(url: string): Promise<void> {
  for (;;) {
    const answer = await fetch(`${url}/health/ready`).catch(() => undefined);
    if (answer?.ok) return;
    await delay(50);
  }
}

function configOf({ upstreamUrl, upstreamConcurrency, ...options }: GatewayOptions): object {
  const auth = {
    issuer: "bench",
    audience: "tidegate",
    algorithm: "HS256",
    secret: jwtSecret,
    scopes: ["org", "user:{sub}"],
    roles: "roles",
  };
  const activity = {
    path: "/activities",
    id: "/id",
    create: { class: "idempotency-key" },
    update: { class: "upsert", method: "PATCH" },
    references: { "/mentor": "mentor" },
    scopes: ["org"],
    ...options.activity,
  };
  const mentor = { path: "/mentors", id: "/id" };
  const legacy = {
    role: "primary",
    kind: "rest",
    baseUrl: upstreamUrl,
    concurrency: upstreamConcurrency,
    entities: { mentor, activity },
  };
  return { tenants: { bench: { auth, upstreams: { legacy } } } };
}
