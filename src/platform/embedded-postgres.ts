import { randomBytes } from "node:crypto";
import { access, constants, mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";

import { Client } from "pg";

import { lockDataDir } from "./embedded-postgres/data-dir-lock.ts";
import { TidegateError } from "./errors.ts";
import { placePostgres, type Placement } from "./embedded-postgres/placement.ts";
import { initialise, startServer, writePrivately } from "./embedded-postgres/server.ts";

export interface EmbeddedPostgres {
  /** Of the role that owns the database and migrates it. */
  ownerUrl: string;
  /** Of the role that serves. */
  serviceUrl: string;
  /** Of the server's superuser, for creating databases and for repairs by hand. */
  superuserUrl: string;
  /** Stops the server and gives the data folder free. */
  stop: () => Promise<void>;
}

interface Passwords {
  superuser: string;
  owner: string;
  service: string;
}

const rolesSql = new URL("../../config/postgres/roles.sql", import.meta.url);

/**
 * Starts a Postgres of our own on `<dataDir>/postgres`, with database and roles but not migrated.
 *
 * A second start finds the data of the first, also after the gateway or the server was killed. What was committed
 * is on the disk: fsync and data checksums are on. The server listens on 127.0.0.1 alone.
 *
 * @throws {TidegateError} `data-dir-in-use` when another gateway runs on the folder; `database-unreachable` when there is
 *   no Postgres in this installation or it does not start. The gateway then ends, and says so.
 */
export async function startEmbeddedPostgres({
  dataDir,
  log,
}: {
  dataDir: string;
  log: (message: string) => void;
}): Promise<EmbeddedPostgres> {
  const dir = resolve(dataDir);
  await makeDataDir(dir);
  const unlock = await lockDataDir(dir);
  try {
    const place = await placePostgres(dir);
    const passwords = await readPasswords(place);
    await initialise(place, passwords.superuser);
    const server = await startServer(place, log);
    const urls = urlsOf(server.port, passwords);
    const stop = async (): Promise<void> => {
      await server.stop();
      await unlock();
    };
    await createDatabase(server.port, passwords).catch(async (error: unknown) => {
      await server.stop();
      throw error;
    });
    log(`embedded Postgres listens on 127.0.0.1:${server.port}, its files are in ${place.home}`);
    return { ...urls, stop };
  } catch (error) {
    await unlock();
    throw error;
  }
}

async function makeDataDir(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true });
    await access(dir, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new TidegateError(
      "config-invalid",
      `TIDEGATE_DATA_DIR can't be used: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** The passwords of the first start; they never leave the machine, and only the server's user can read them. */
async function readPasswords(place: Placement): Promise<Passwords> {
  const path = join(place.home, "passwords.json");
  const kept = await readFile(path, "utf8").catch(() => undefined);
  if (kept !== undefined) return JSON.parse(kept) as Passwords;
  const passwords: Passwords = { superuser: newPassword(), owner: newPassword(), service: newPassword() };
  await writePrivately(place, path, JSON.stringify(passwords));
  return passwords;
}

function newPassword(): string {
  return randomBytes(24).toString("hex");
}

function urlsOf(port: number, { superuser, owner, service }: Passwords): Omit<EmbeddedPostgres, "stop"> {
  const url = (role: string, password: string): string =>
    `postgres://${role}:${password}@127.0.0.1:${port}/tidegate`;
  return {
    ownerUrl: url("tidegate_owner", owner),
    serviceUrl: url("tidegate", service),
    superuserUrl: url("postgres", superuser),
  };
}

async function createDatabase(port: number, passwords: Passwords): Promise<void> {
  const { superuserUrl } = urlsOf(port, passwords);
  await withClient(superuserUrl.replace(/tidegate$/, "postgres"), async (client) => {
    const { rowCount } = await client.query("select from pg_database where datname = 'tidegate'");
    if (rowCount === 0) await client.query("create database tidegate");
  });
  await withClient(superuserUrl, async (client) => await applyRoles(client, passwords));
}

/** Creates or updates the two roles, and makes the owner the owner of the database that the client is connected to. */
export async function applyRoles(
  superuser: Client,
  passwords: { owner: string; service: string },
): Promise<void> {
  const setPassword = "select set_config('tidegate.' || $1 || '_password', $2, false)";
  await superuser.query(setPassword, ["owner", passwords.owner]);
  await superuser.query(setPassword, ["service", passwords.service]);
  await superuser.query(await readFile(rolesSql, "utf8"));
}

async function withClient<T>(connectionString: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
