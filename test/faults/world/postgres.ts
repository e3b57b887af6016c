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
  /** Deadlocks that the server had to break, over all restarts. */
  deadlocks: () => Promise<number>;
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
  let deadlocksBefore = 0;

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
  const countDeadlocks = async (): Promise<number> => {
    const [row] = await rows<{ deadlocks: string }>(
      "select deadlocks from pg_stat_database where datname = current_database()",
    );
    return Number(row?.deadlocks ?? 0);
  };

  await rows("alter system set fsync = off");
  await rows("select pg_reload_conf()");
  await migrate(ownerUrl, { serviceRole: "tidegate" });
  return {
    serviceUrl,
    rows,
    connect,
    async restart(how) {
      deadlocksBefore += how === "immediate" ? await countDeadlocks() : 0;
      if (how === "immediate") process.kill(await postmasterOf(dataDir), "SIGQUIT");
      await server.stop();
      server = await start();
    },
    deadlocks: async () => deadlocksBefore + (await countDeadlocks()),
  };
}

async function postmasterOf(dataDir: string): Promise<number> {
  const link = join(dataDir, "postgres");
  const home = existsSync(link) ? realpathSync(link) : dataDir;
  const text = await readFile(join(home, "data", "postmaster.pid"), "utf8");
  return Number(text.split("\n")[0]);
}
