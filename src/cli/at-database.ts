import { startEmbeddedPostgres } from "../platform/embedded-postgres.ts";
import { migrate } from "../platform/migrate.ts";

/**
 * Runs `work` on the database that the environment names; without one on the embedded Postgres, which belongs to a gateway
 * that runs: that has to be stopped.
 */
export async function atDatabase<T>(env: NodeJS.ProcessEnv, work: (url: string) => Promise<T>): Promise<T> {
  const url = env["MIGRATION_DATABASE_URL"] ?? env["DATABASE_URL"];
  if (url !== undefined) return await work(url);
  const dataDir = env["TIDEGATE_DATA_DIR"] ?? ".tidegate";
  const embedded = await startEmbeddedPostgres({ dataDir, log: () => undefined });
  try {
    await migrate(embedded.ownerUrl, { serviceRole: "tidegate" });
    return await work(embedded.ownerUrl);
  } finally {
    await embedded.stop();
  }
}
