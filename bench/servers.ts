import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { applyRoles, startEmbeddedPostgres } from "../src/platform/embedded-postgres.ts";
import { migrate } from "../src/platform/migrate.ts";
import { assertRedisReachable } from "../src/platform/redis.ts";
import { asSuperuser, inDatabase, removeDataDir } from "../test/fixtures/postgres-server.ts";

export interface Postgres {
  /** Connects to a new, empty database as the superuser. */
  createDatabase: () => Promise<string>;
  /** The same with the gateway's roles and tables; connects as the role that serves. */
  createGatewayDatabase: () => Promise<string>;
  /** As autovacuum would sooner or later, so that it does not do so in the middle of a measurement. */
  vacuum: (databaseUrl: string) => Promise<void>;
  version: string;
  /** Removes what was created, and the server if it is ours. */
  stop: () => Promise<void>;
}

/** A server as the gateway itself starts one: whatever is committed is on the disk. TEST_DATABASE_URL takes its place. */
export async function startPostgres(): Promise<Postgres> {
  const server = await openServer();
  const { superuserUrl } = server;
  const created: string[] = [];
  const run = async (text: string): Promise<void> =>
    await asSuperuser(superuserUrl, async (client) => void (await client.query(text)));
  const createDatabase = async (): Promise<string> => {
    const name = `tidegate_bench_${randomBytes(6).toString("hex")}`;
    await run(`create database ${name}`);
    created.push(name);
    return inDatabase(superuserUrl, name);
  };
  return {
    createDatabase,
    createGatewayDatabase: async () => await prepareForGateway(await createDatabase()),
    async vacuum(databaseUrl) {
      const url = inDatabase(superuserUrl, new URL(databaseUrl).pathname.slice(1));
      await asSuperuser(url, async (client) => void (await client.query("vacuum (freeze, analyze)")));
    },
    version: await asSuperuser(superuserUrl, async (client) => {
      const { rows } = await client.query<{ server_version: string }>("show server_version");
      return rows[0]?.server_version ?? "unknown";
    }),
    async stop() {
      for (const name of created) await run(`drop database if exists ${name} with (force)`);
      await server.stop();
    },
  };
}

async function openServer(): Promise<{ superuserUrl: string; stop: () => Promise<void> }> {
  const given = process.env["TEST_DATABASE_URL"];
  if (given !== undefined) return { superuserUrl: given, stop: async () => await Promise.resolve() };
  const dataDir = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
  // The server's user has to get through, if it is not ours.
  await chmod(dataDir, 0o755);
  const { superuserUrl, stop } = await startEmbeddedPostgres({ dataDir, log: () => undefined });
  const stopAndRemove = async (): Promise<void> => {
    await stop();
    removeDataDir(dataDir);
  };
  return { superuserUrl, stop: stopAndRemove };
}

const passwords = { owner: "tidegate-test-owner", service: "tidegate-test-service" };

async function prepareForGateway(superuserUrl: string): Promise<string> {
  await asSuperuser(superuserUrl, async (client) => await applyRoles(client, passwords));
  const as = (username: string, password: string): string =>
    Object.assign(new URL(superuserUrl), { username, password }).href;
  await migrate(as("tidegate_owner", passwords.owner), { serviceRole: "tidegate" });
  return as("tidegate", passwords.service);
}

export interface RedisServer {
  /** A numbered database of it. */
  url: (database: number) => string;
  stop: () => Promise<void>;
}

/** The redis-server on the PATH, nothing of it on a disk, or TEST_REDIS_URL; undefined when there is neither. */
export async function startRedis(): Promise<RedisServer | undefined> {
  const given = process.env["TEST_REDIS_URL"];
  if (given !== undefined) return { url: numbered(given), stop: async () => await Promise.resolve() };
  const dir = await mkdtemp(join(tmpdir(), "tidegate-bench-redis-"));
  const port = await freePort();
  const listen = ["--bind", "127.0.0.1", "--port", String(port), "--dir", dir];
  const server = spawn("redis-server", [...listen, "--save", "", "--appendonly", "no"], { stdio: "ignore" });
  const spawned = await once(server, "spawn").then(
    () => true,
    () => false,
  );
  const url = `redis://127.0.0.1:${port}`;
  if (spawned) await whenReachable(url);
  const stop = async (): Promise<void> => {
    const ended = once(server, "exit");
    if (spawned && server.kill("SIGKILL")) await ended;
    await rm(dir, { recursive: true, force: true });
  };
  if (spawned) return { url: numbered(url), stop };
  await rm(dir, { recursive: true, force: true });
  return undefined;
}

function numbered(url: string): (database: number) => string {
  return (database) => Object.assign(new URL(url), { pathname: `/${database}` }).href;
}

async function whenReachable(url: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await assertRedisReachable(url);
      return;
    } catch (error) {
      if (attempt === 100) throw error;
      await delay(50);
    }
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  return port;
}
