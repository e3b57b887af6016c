import { execFile } from "node:child_process";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { expect, vi } from "vitest";

import { startEmbeddedPostgres } from "../../src/platform/embedded-postgres.ts";
import { placePostgres } from "../../src/platform/embedded-postgres/placement.ts";
import { startServer, writePrivately } from "../../src/platform/embedded-postgres/server.ts";
import { migrate } from "../../src/platform/migrate.ts";
import type { TestDatabase } from "../fixtures/postgres.ts";
import { asSuperuser, removeDataDir } from "../fixtures/postgres-server.ts";

const run = promisify(execFile);
const quiet = { log: () => undefined };

/** A Postgres on a data folder of its own. */
export interface Server {
  dataDir: string;
  /** The server's own folder. */
  pgData: string;
  port: number;
  superuserUrl: string;
  ownerUrl: string;
  serviceUrl: string;
  stop: () => Promise<void>;
  /** Ends it without a chance to finish anything. */
  kill: () => Promise<void>;
}

export async function newDataDir(): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), "tidegate-recovery-"));
  await chmod(dataDir, 0o755);
  return dataDir;
}

/** Starts, or restarts, a server that can be written to, and migrates it. */
export async function startDatabase(dataDir: string): Promise<Server> {
  const embedded = await startEmbeddedPostgres({ dataDir, ...quiet });
  // Killing processes, as these tests do, loses nothing of what the system has; only a power cut would.
  await asSuperuser(embedded.superuserUrl, async (client) => {
    await client.query("alter system set fsync = off");
    await client.query("select pg_reload_conf()");
  });
  await migrate(embedded.ownerUrl, { serviceRole: "tidegate" });
  return toServer(dataDir, embedded, embedded.stop);
}

function toServer(
  dataDir: string,
  urls: Pick<Server, "superuserUrl" | "ownerUrl" | "serviceUrl">,
  stop: () => Promise<void>,
): Server {
  const { superuserUrl, ownerUrl, serviceUrl } = urls;
  const pgData = join(dataDir, "postgres", "data");
  const port = Number(new URL(superuserUrl).port);
  const kill = async (): Promise<void> => {
    const pid = Number.parseInt(await readFile(join(pgData, "postmaster.pid"), "utf8"), 10);
    process.kill(pid, "SIGKILL");
    await stop();
  };
  return { dataDir, pgData, port, superuserUrl, ownerUrl, serviceUrl, stop, kill };
}

/** A base backup of a running server, in a data folder of its own; the log that is needed to restore it comes later. */
export async function backUp(server: Server): Promise<string> {
  const dataDir = await newDataDir();
  const target = await placePostgres(dataDir);
  await asSuperuser(server.superuserUrl, async (client) => {
    // In the place of an archive.
    await client.query("alter system set wal_keep_size = '1GB'");
    await client.query("select pg_reload_conf()");
    await client.query("select pg_backup_start('nightly', fast => true)");
    await copy(server, dataDir);
    const { rows } = await client.query<{ labelfile: string }>("select labelfile from pg_backup_stop()");
    await writePrivately(target, join(target.home, "data", "backup_label"), rows[0]?.labelfile ?? "");
  });
  await rm(join(target.home, "data", "postmaster.pid"), { force: true });
  return dataDir;
}

/** The files of a server as they are, with their owners. */
export async function copy({ dataDir: from }: Pick<Server, "dataDir">, to: string): Promise<void> {
  const { home } = await placePostgres(to);
  await rm(join(home, "data"), { recursive: true, force: true });
  const files = ["data", "passwords.json"].map((name) => join(from, "postgres", name));
  // A running server's files come and go.
  await run("cp", ["-a", ...files, home]).catch(() => undefined);
}

/** Restores a backup up to a restore point, with the log that the lost server left, and migrates nothing by hand. */
export async function restore(backup: string, lost: Server, restorePoint: string): Promise<Server> {
  const place = await placePostgres(backup);
  const pgData = join(place.home, "data");
  const settings = [
    `restore_command = 'cp "${join(lost.pgData, "pg_wal")}/%f" "%p"'`,
    `recovery_target_name = '${restorePoint}'`,
    "recovery_target_action = 'promote'",
    // Ready means here: recovered.
    "hot_standby = off",
  ];
  await writePrivately(place, join(pgData, "postgresql.auto.conf"), settings.join("\n"));
  await writePrivately(place, join(pgData, "recovery.signal"), "");
  return await startDatabase(backup);
}

/** A standby of a server, which follows it until `stopFollowing`. */
export interface Standby extends Server {
  hasCaughtUp: () => Promise<void>;
  stopFollowing: () => Promise<void>;
  promote: () => Promise<void>;
}

export async function startStandby(primary: Server): Promise<Standby> {
  const dataDir = await backUp(primary);
  const place = await placePostgres(dataDir);
  const pgData = join(place.home, "data");
  const { hostname, port, username, password } = new URL(primary.superuserUrl);
  const info = `host=${hostname} port=${port} user=${username} password=${password}`;
  await writePrivately(place, join(pgData, "postgresql.auto.conf"), `primary_conninfo = '${info}'`);
  await writePrivately(place, join(pgData, "standby.signal"), "");
  const { port: ownPort, stop } = await startServer(place, () => undefined);
  const at = (url: string): string => Object.assign(new URL(url), { port: String(ownPort) }).href;
  const urls = {
    superuserUrl: at(primary.superuserUrl),
    ownerUrl: at(primary.ownerUrl),
    serviceUrl: at(primary.serviceUrl),
  };
  return {
    ...toServer(dataDir, urls, stop),
    async hasCaughtUp() {
      const reached = await ask<string>(
        primary.superuserUrl,
        "select pg_current_wal_flush_lsn()::text as it",
      );
      const isThere = `select pg_last_wal_replay_lsn() >= '${reached}' as it`;
      await vi.waitFor(async () => expect(await ask(urls.superuserUrl, isThere)).toBe(true), waiting);
    },
    async stopFollowing() {
      await ask(urls.superuserUrl, "alter system set primary_conninfo = ''");
      await ask(urls.superuserUrl, "select pg_reload_conf() as it");
      const following = "select count(*)::integer as it from pg_stat_wal_receiver";
      await vi.waitFor(async () => expect(await ask(urls.superuserUrl, following)).toBe(0), waiting);
    },
    async promote() {
      expect(await ask(urls.superuserUrl, "select pg_promote() as it")).toBe(true);
    },
  };
}

/** The value of a query's column `it`. */
async function ask<T>(url: string, query: string): Promise<T> {
  return await asSuperuser(url, async (client) => (await client.query(query)).rows[0]?.it as T);
}

const waiting = { timeout: 20_000, interval: 50 };

/** The address under which a gateway knows its database; what is behind it can be exchanged, as by a failover. */
export interface Address extends AsyncDisposable {
  of: (server: Server) => TestDatabase;
  /** Ends all connections; new ones go there. */
  pointTo: (server: Pick<Server, "port">) => void;
}

export async function openAddress(): Promise<Address> {
  const sockets = new Set<Socket>();
  let target = 0;
  const server = createServer((client) => {
    const upstream = connect({ host: "127.0.0.1", port: target });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket
        .on("error", () => other.destroy())
        .on("close", () => {
          sockets.delete(socket);
          other.destroy();
        });
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const port = String((server.address() as AddressInfo).port);
  const through = (url: string): string => Object.assign(new URL(url), { port }).href;
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    of: ({ ownerUrl, serviceUrl, superuserUrl }) => ({
      ownerUrl: through(ownerUrl),
      serviceUrl: through(serviceUrl),
      superuserUrl: through(superuserUrl),
      drop: async () => await Promise.resolve(),
    }),
    pointTo({ port: to }) {
      target = to;
      cut();
    },
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => void server.close(resolve));
    },
  };
}

/** Stops the servers and removes their files, in the reverse order. */
export async function removeAll(servers: Server[]): Promise<void> {
  for (const { stop, dataDir } of servers.toReversed()) {
    await stop();
    removeDataDir(dataDir);
  }
}
