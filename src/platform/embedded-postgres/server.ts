import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chown, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { TidegateError } from "../errors.ts";
import { commandOf, isAlive, startOf } from "./os-process.ts";
import type { Placement } from "./placement.ts";

export interface PostgresServer {
  port: number;
  /** Lets running statements be cancelled, writes a checkpoint and waits for the end. */
  stop: () => Promise<void>;
}

/** Long enough for a recovery of all the WAL that `max_wal_size` allows, on a slow disk. */
const startTimeoutMs = 180_000;
/** Past this a server that does not stop is told to do so at once; its next start recovers from the WAL. */
const stopTimeoutMs = 20_000;

const settings = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: "200",
  shared_buffers: "128MB",
  // The server's log holds no payload: neither statements, nor their parameters, nor the keys in a DETAIL line.
  log_error_verbosity: "terse",
  log_min_error_statement: "panic",
  log_checkpoints: "off",
};

/** Creates the data folder, unless it is there. It appears only when it is complete. */
export async function initialise(place: Placement, superuserPassword: string): Promise<void> {
  const dataDir = join(place.home, "data");
  if (await readFile(join(dataDir, "PG_VERSION")).catch(() => undefined)) return;
  const unfinished = join(place.home, "data.new");
  await rm(unfinished, { recursive: true, force: true });
  const passwordFile = join(place.home, "initdb-password");
  await writePrivately(place, passwordFile, superuserPassword);
  const args = [
    "--username=postgres",
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--data-checksums",
  ];
  const locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  await runLogged(place, "initdb", [`--pgdata=${unfinished}`, ...args, ...locale]);
  await rm(passwordFile);
  await rename(unfinished, dataDir);
}

/**
 * Starts the server, at the port of its last start if that is still free.
 *
 * Crash recovery happens here. The server outlives neither `stop` nor, by its watchdog, the gateway.
 *
 * @throws {TidegateError} `database-unreachable` with the end of the server's log when it does not come up.
 */
export async function startServer(place: Placement, log: (message: string) => void): Promise<PostgresServer> {
  await stopOrphan(place, log);
  const port = await choosePort(place);
  const args = ["-D", join(place.home, "data"), "-p", String(port)];
  for (const [name, value] of Object.entries(settings)) args.push("-c", `${name}=${value}`);
  const server = await spawnLogged(place, "postgres", args);
  const watchdog = await watch(place, server);
  const stopAtExit = (): void => void server.kill("SIGINT");
  process.once("exit", stopAtExit);
  server.once("exit", () => {
    watchdog?.kill("SIGKILL");
    process.off("exit", stopAtExit);
  });
  await untilReady(place, server);
  server.once("exit", (code, signal) => log(`the embedded Postgres has ended (${signal ?? `code ${code}`})`));
  return { port, stop: async () => await stopChild(server) };
}

/**
 * Stops a server that a killed gateway left behind on this data, and clears the PID file of one that is gone.
 * The caller holds the data folder's lock, so no other gateway wants it.
 */
async function stopOrphan(place: Placement, log: (message: string) => void): Promise<void> {
  const pidFile = join(place.home, "data", "postmaster.pid");
  const pid = Number.parseInt((await readFile(pidFile, "utf8").catch(() => "")).split("\n")[0] ?? "", 10);
  if (!(pid > 0)) return;
  if (!(await isServerOf(place, pid))) {
    // Postgres itself would refuse to start if the PID now belongs to any other process of the same user.
    await rm(pidFile, { force: true });
    return;
  }
  log(`stopping the embedded Postgres (PID ${pid}) that an earlier gateway left running`);
  kill(pid, "SIGINT");
  for (let waitedMs = 0; await isServerOf(place, pid); waitedMs += 20) {
    if (waitedMs === stopTimeoutMs) kill(pid, "SIGQUIT");
    await delay(20);
  }
}

async function isServerOf(place: Placement, pid: number): Promise<boolean> {
  if (!isAlive(pid) || (await startOf(pid)) === undefined) return false;
  const command = await commandOf(pid);
  return command !== undefined && command.includes(`-D ${join(place.home, "data")} `);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has just ended.
  }
}

/** Ends the server when the gateway dies without a chance to do so: a shell waits for the end of its input. */
async function watch(place: Placement, server: ChildProcess): Promise<ChildProcess | undefined> {
  const script = `read -r _; kill -INT ${server.pid}`;
  const watchdog = spawn("/bin/sh", ["-c", script], {
    ...place.user,
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  // Without a shell the next start stops what is left.
  return await once(watchdog, "spawn").then(
    () => {
      watchdog.unref();
      return watchdog;
    },
    () => undefined,
  );
}

async function stopChild(server: ChildProcess): Promise<void> {
  if (hasEnded(server)) return;
  const ended = once(server, "exit");
  server.kill("SIGINT");
  const impatience = setTimeout(() => server.kill("SIGQUIT"), stopTimeoutMs);
  await ended;
  clearTimeout(impatience);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** The server writes its status on the eighth line of its PID file. */
async function untilReady(place: Placement, server: ChildProcess): Promise<void> {
  const pidFile = join(place.home, "data", "postmaster.pid");
  for (let waitedMs = 0; waitedMs < startTimeoutMs; waitedMs += 20) {
    if (hasEnded(server)) break;
    const lines = (await readFile(pidFile, "utf8").catch(() => "")).split("\n");
    if (Number(lines[0]) === server.pid && lines[7]?.trim() === "ready") return;
    await delay(20);
  }
  await stopChild(server);
  throw new TidegateError(
    "database-unreachable",
    `The embedded Postgres did not start.\n${await endOfLog(place)}`,
  );
}

/** Kept beside the data, so that connection strings stay valid from start to start. */
async function choosePort(place: Placement): Promise<number> {
  const file = join(place.home, "port");
  const last = Number(await readFile(file, "utf8").catch(() => "0"));
  const port = (await freePort(last)) ?? (await freePort(0));
  if (port === undefined) throw new Error("no port of 127.0.0.1 is free");
  await writePrivately(place, file, String(port));
  return port;
}

async function freePort(wanted: number): Promise<number | undefined> {
  const probe = createServer().listen(wanted, "127.0.0.1");
  try {
    await once(probe, "listening");
    return (probe.address() as AddressInfo).port;
  } catch {
    return undefined;
  } finally {
    probe.close();
  }
}

async function runLogged(place: Placement, program: string, args: string[]): Promise<void> {
  const child = await spawnLogged(place, program, args);
  if (!hasEnded(child)) await once(child, "exit");
  if (child.exitCode === 0) return;
  throw new TidegateError("database-unreachable", `${program} failed.\n${await endOfLog(place)}`);
}

/**
 * Starts a program in its own process group (Ctrl-C is for the gateway, which stops the server last), and with an
 * environment of its own: PGDATA, PGPORT and the like are for other servers.
 */
async function spawnLogged(place: Placement, program: string, args: string[]): Promise<ChildProcess> {
  const logFile = await open(logPath(place), "a", 0o600);
  try {
    if (place.user) await logFile.chown(place.user.uid, place.user.gid);
    const child = spawn(join(place.binDir, program), args, {
      ...place.user,
      cwd: "/",
      env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
      detached: true,
      stdio: ["ignore", logFile.fd, logFile.fd],
    });
    await once(child, "spawn");
    return child;
  } catch (cause) {
    throw new TidegateError("database-unreachable", `${program} can't be run: ${(cause as Error).message}`, {
      cause,
    });
  } finally {
    await logFile.close();
  }
}

async function endOfLog(place: Placement): Promise<string> {
  const text = await readFile(logPath(place), "utf8").catch(() => "");
  return `The end of ${logPath(place)}:\n${text.trim().split("\n").slice(-8).join("\n")}`;
}

function logPath(place: Placement): string {
  return join(place.home, "server.log");
}

/** Writes a file that only the server's user can read; it is there whole or not at all. */
export async function writePrivately(place: Placement, path: string, content: string): Promise<void> {
  const unfinished = `${path}.new`;
  await writeFile(unfinished, content, { mode: 0o600 });
  if (place.user) await chown(unfinished, place.user.uid, place.user.gid);
  await rename(unfinished, path);
}
