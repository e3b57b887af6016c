import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { TidegateError } from "../errors.ts";
import { isAlive, startOf } from "./os-process.ts";

/** The PID and start time of the gateway that holds a data folder. */
interface Holder {
  pid: number;
  startedAt: string | undefined;
}

/**
 * Makes this process the only gateway on the data folder, until the returned function is called or the process ends.
 *
 * A lock whose process has ended is taken over; its PID may meanwhile belong to another process.
 *
 * @throws {TidegateError} `data-dir-in-use` with the PID of the gateway that is running on it.
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  const path = join(dataDir, "gateway.lock");
  const own = `${path}.${process.pid}`;
  const holder: Holder = { pid: process.pid, startedAt: await startOf(process.pid) };
  await writeFile(own, JSON.stringify(holder));
  try {
    while (!(await tryLink(own, path))) await removeIfStale(path, dataDir);
  } finally {
    await rm(own, { force: true });
  }
  return async () => await rm(path, { force: true });
}

/** A link appears with its content, so nobody ever reads a lock that is half written. */
async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function removeIfStale(path: string, dataDir: string): Promise<void> {
  const content = await readFile(path, "utf8").catch(() => undefined);
  if (content === undefined) return;
  const holder = parseHolder(content);
  if (holder && (await isRunning(holder))) {
    throw new TidegateError(
      "data-dir-in-use",
      `The data folder ${dataDir} is in use by the gateway with PID ${holder.pid}. ` +
        "Stop it, or set another TIDEGATE_DATA_DIR.",
      { extensions: { pid: holder.pid } },
    );
  }
  await removeExactly(path, content);
}

/** Removes the lock that was read, and not one that another gateway took since. */
async function removeExactly(path: string, content: string): Promise<void> {
  const aside = `${path}.stale.${process.pid}`;
  await rename(path, aside).catch(() => undefined);
  const moved = await readFile(aside, "utf8").catch(() => undefined);
  if (moved !== undefined && moved !== content) await tryLink(aside, path);
  await rm(aside, { force: true });
}

function parseHolder(content: string): Holder | undefined {
  try {
    return JSON.parse(content) as Holder;
  } catch {
    return undefined;
  }
}

async function isRunning({ pid, startedAt }: Holder): Promise<boolean> {
  return isAlive(pid) && (await startOf(pid)) === startedAt;
}
