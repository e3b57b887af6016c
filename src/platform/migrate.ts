import { runMigrations } from "bullmq";
import { Kysely, PostgresDialect, sql } from "kysely";
import { Migrator } from "kysely/migration";
import { Pool } from "pg";

import { assertDatabaseReachable } from "./database-check.ts";
import { grantService } from "./grants.ts";
import { readMigrations } from "./migration-files.ts";
import { assertNotNewer, assertQueuesNotNewer } from "./schema-version.ts";

/** The schema that holds Tidegate's tables, and the ledger of its migrations. */
const schema = "tidegate";

/**
 * Brings the database to this version: Tidegate's migrations, each in a transaction of its own, BullMQ's, and what the
 * service's role may do. Running it again, or twice at once, is harmless.
 *
 * @param ownerUrl connects as the role that owns the database.
 * @returns the names of the migrations that were applied now, in order.
 * @throws {TidegateError} `database-unreachable`; `database-version` when the database is newer than the code.
 */
export async function migrate(
  ownerUrl: string,
  { serviceRole }: { serviceRole: string },
): Promise<{ applied: string[] }> {
  await assertDatabaseReachable(ownerUrl);
  const pool = new Pool({ connectionString: ownerUrl, max: 2, application_name: "tidegate-migrate" });
  // A broken idle connection shows in the next statement; unheard, it would end the process.
  pool.on("error", () => undefined);
  const db = new Kysely<object>({ dialect: new PostgresDialect({ pool }) });
  try {
    const applied = await applyMigrations(db);
    await migrateQueues(pool);
    await grantService(db, serviceRole);
    return { applied };
  } finally {
    await db.destroy();
  }
}

async function applyMigrations(db: Kysely<object>): Promise<string[]> {
  const migrations = await readMigrations();
  const migrator = new Migrator({
    db,
    provider: { getMigrations: async () => await Promise.resolve(migrations) },
    migrationTableSchema: schema,
    migrationTableName: "migration",
    migrationLockTableName: "migration_lock",
  });
  const applied: string[] = [];
  for (;;) {
    // One at a time: the migrator would put all that are due into one transaction.
    const { error, results } = await migrator.migrateUp();
    if (error !== undefined) {
      assertNotNewer(await readApplied(db), Object.keys(migrations));
      throw error;
    }
    const [result] = results ?? [];
    if (result === undefined) return applied;
    applied.push(result.migrationName);
  }
}

async function readApplied(db: Kysely<object>): Promise<Set<string>> {
  const ledger = await sql<{ name: string }>`select name from tidegate.migration`
    .execute(db)
    .catch(() => undefined);
  return new Set(ledger?.rows.map(({ name }) => name));
}

async function migrateQueues(pool: Pool): Promise<void> {
  const client = await pool.connect();
  try {
    assertQueuesNotNewer(await runMigrations(client, "bullmq"));
  } finally {
    client.release();
  }
}
