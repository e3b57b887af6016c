import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

import { createStage, freePort, startNode, stopNode, untilAnswering, type Stage } from "./stage.ts";

/** The old system: json-server from npm, which knows nothing of Tidegate, in a process of its own. */
export interface Legacy {
  url: string;
  records: (collection: string) => Promise<LegacyRecord[]>;
  /** Goes away; its file stays. */
  stop: () => Promise<void>;
  /** Comes back on the same port, with what its file holds. */
  start: () => Promise<void>;
}

export interface LegacyRecord {
  id: number;
  [field: string]: unknown;
}

/** What others have put there before: no record of ours, and none has our reference. */
export const strangers: Record<string, LegacyRecord[]> = {
  mentors: [{ id: 1, name: "Ingrid Solberg", city: "Bergen" }],
  activities: [
    { id: 1, mentor: "1", what: "group meeting", minutes: 90 },
    { id: 2, mentor: "1", what: "hospital visit", minutes: 35 },
  ],
};

const program = createRequire(import.meta.url).resolve("json-server/lib/cli/bin.js");

/** Starts it on a file, which is made with the strangers' records unless it is there. */
export async function startLegacy(
  stage: Stage,
  { port, dbPath, logPath }: { port: number; dbPath: string; logPath: string },
): Promise<Legacy> {
  const url = `http://127.0.0.1:${port}`;
  if (!existsSync(dbPath)) writeFileSync(dbPath, JSON.stringify(strangers, null, 2));
  let child: ChildProcess | undefined;
  const get = async (path: string): Promise<unknown> => await (await fetch(url + path)).json();

  const stop = async (): Promise<void> => {
    if (!child) return;
    // json-server answers before it has written its file.
    await untilWritten(dbPath, () => get("/db"));
    await stopNode(child);
  };
  const start = async (): Promise<void> => {
    const args = [program, "--quiet", "--host", "127.0.0.1", "--port", String(port), dbPath];
    stage.onClose(stop);
    child = startNode(args, { logPath, cwd: dirname(dbPath), env: process.env });
    await untilAnswering(child, `${url}/db`);
  };
  await start();
  return { url, start, stop, records: async (name) => (await get(`/${name}`)) as LegacyRecord[] };
}

async function untilWritten(dbPath: string, state: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const held = await state().catch(() => undefined);
    if (held === undefined || isDeepStrictEqual(held, JSON.parse(readFileSync(dbPath, "utf8")))) return;
    await delay(20);
  }
}

/** `npm run demo:legacy`: where config/demo.yaml expects it, until Ctrl-C; its records stay in TIDEGATE_DATA_DIR. */
async function main(): Promise<void> {
  const dataDir = resolve(process.env["TIDEGATE_DATA_DIR"] || ".tidegate");
  mkdirSync(dataDir, { recursive: true });
  const dbPath = join(dataDir, "legacy.json");
  const stage = createStage();
  const asked = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
  const port = await freePort(4010);
  const { url } = await startLegacy(stage, { port, dbPath, logPath: join(dataDir, "legacy.log") });
  console.log(
    `json-server holds ${dbPath} at ${url}: ${url}/mentors and ${url}/activities. Ctrl-C stops it.`,
  );
  await asked;
  await stage.close();
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(`The legacy system did not start: ${(error as Error).message}`);
    process.exitCode = 1;
  });
}
