import { existsSync, realpathSync } from "node:fs";
import { chmod, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "pg";

import { startEmbeddedPostgres } from "../../../src/platform/embedded-postgres.ts";
import { migrate } from "../../../src/platform/migrate.ts";
import { removeDataDir } from "../../fixtures/postgres-server.ts";
import type { Cleanup } from "./cleanup.ts";

/** A Postgres of the run's own, at one address for as long as the run lasts. */
export interface Postgres {
  serviceUrl: string;
  /** Rows of every tenant, past the row-level security. Waits while the server is away. */
  rows: <Row>(query: string, values?: unknown[]) => Promise<Row[]>;
  /** A connection that holds locks. */
  connect: () => Promise<Client>;
  /** `fast` ends every connection in order; `immediate` is a crash, and recovers from the log. */
  restart: (how: "fast" | "immediate") => Promise<void>;
  /**
   * What the server wrote of each deadlock that it had to break: who waited for whom, in which statements. The queue's own
   * are among nobody but claims of jobs and the like.
   */
  deadlocks: () => Promise<{ text: string; isQueues: boolean }[]>;
}

export async function startPostgres(cleanup: Cleanup): Promise<Postgres> {
  const dataDir = await mkdtemp(join(tmpdir(), "tidegate-faults-pg-"));
  // The server's user has to get through, if it is not ours.
  await chmod(dataDir, 0o755);
  cleanup.add(() => removeDataDir(dataDir));
  const start = async () => await startEmbeddedPostgres({ dataDir, log: () => undefined });
  let server = await start();
  cleanup.add(async () => await server.stop());
  const { superuserUrl, serviceUrl, ownerUrl } = server;

  const connect = async (): Promise<Client> => {
    const client = new Client({ connectionString: superuserUrl, options: "-c search_path=tidegate" });
    client.on("error", () => undefined);
    await client.connect();
    return client;
  };
  const tryRows = async <Row>(query: string, values: unknown[]): Promise<Row[]> => {
    const client = await connect();
    try {
      return (await client.query(query, values)).rows as Row[];
    } finally {
      await client.end().catch(() => undefined);
    }
  };
  const rows: Postgres["rows"] = async (query, values = []) => {
    for (let tries = 1; ; tries++) {
      try {
        return await tryRows(query, values);
      } catch (error) {
        const { code } = error as { code?: string };
        const isFault = code !== undefined && /^(22|42|23)/.test(code);
        if (isFault || tries === 100) throw error;
        await delay(100);
      }
    }
  };
  await rows("alter system set fsync = off");
  await rows("select pg_reload_conf()");
  // What the run holds is made up, so that the server may log it. (A role's settings come before those of the start.)
  for (const role of ["tidegate", "postgres"])
    await rows(`alter role ${role} set log_error_verbosity = 'default'`);
  await migrate(ownerUrl, { serviceRole: "tidegate" });
  return {
    serviceUrl,
    rows,
    connect,
    async restart(how) {
      if (how === "immediate") process.kill(await postmasterOf(dataDir), "SIGQUIT");
      await server.stop();
      server = await start();
    },
    async deadlocks() {
      const log = await readFile(join(homeOf(dataDir), "server.log"), "utf8");
      const entries = log.split(/^(?=\S)/m);
      return entries
        .map((entry, index) => entry + (entries[index + 1] ?? ""))
        .filter((text) => /^.*ERROR: {2}deadlock detected/.test(text))
        .map((text) => ({ text, isQueues: statementsOf(text).every((one) => one.startsWith("-- ")) }));
    },
  };
}

/** Those that waited for each other, by their beginning: the queue's all begin with a comment, none of ours does. */
function statementsOf(deadlock: string): string[] {
  return [...deadlock.matchAll(/^\tProcess \d+: (.*)$/gm)].map(([, statement = ""]) => statement);
}

async function postmasterOf(dataDir: string): Promise<number> {
  const text = await readFile(join(homeOf(dataDir), "data", "postmaster.pid"), "utf8");
  return Number(text.split("\n")[0]);
}

function homeOf(dataDir: string): string {
  const link = join(dataDir, "postgres");
  return existsSync(link) ? realpathSync(link) : dataDir;
}
