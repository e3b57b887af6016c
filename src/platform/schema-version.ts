import { LATEST_SCHEMA_VERSION } from "bullmq";
import { sql, type QueryExecutorProvider } from "kysely";

import { reasonOf } from "./database-check.ts";
import { TidegateError } from "./errors.ts";
import { listMigrations } from "./migration-files.ts";

/**
 * Refuses to serve on a database that this version was not written for.
 *
 * @param queuesOnPostgres whether BullMQ runs in this database; its own check accepts other versions of its tables.
 * @throws {TidegateError} `database-version`, or `database-unreachable` when it can't be read at all.
 */
export async function assertSchemaIsCurrent(
  serviceDb: QueryExecutorProvider,
  { queuesOnPostgres }: { queuesOnPostgres: boolean },
): Promise<void> {
  const applied = await readLedger<{ name: string }>(serviceDb, sql`select name from tidegate.migration`);
  const names = new Set(applied.map(({ name }) => name));
  assertNotNewer(names, await listMigrations());
  const missing = (await listMigrations()).filter((name) => !names.has(name));
  if (missing.length > 0) throw behind(`lacks ${missing.join(", ")}`);
  await assertSearchPath(serviceDb);
  if (queuesOnPostgres) await assertQueuesAreCurrent(serviceDb);
}

/** @throws {TidegateError} `database-version` when migrations were applied that this version does not have. */
export function assertNotNewer(applied: ReadonlySet<string>, known: readonly string[]): void {
  const unknown = [...applied].filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  throw new TidegateError(
    "database-version",
    `The database is newer than the code: it has ${unknown.join(", ")}. Start the version that migrated it.`,
  );
}

async function assertQueuesAreCurrent(serviceDb: QueryExecutorProvider): Promise<void> {
  const versions = sql`select coalesce(max(version), 0)::int as version from bullmq.migration`;
  const [row] = await readLedger<{ version: number }>(serviceDb, versions);
  const version = row?.version ?? 0;
  if (version < LATEST_SCHEMA_VERSION) {
    throw behind(`has version ${version} of BullMQ's tables, which is not ${LATEST_SCHEMA_VERSION}`);
  }
  assertQueuesNotNewer(version);
}

/** @throws {TidegateError} `database-version` when a later BullMQ has migrated its tables. */
export function assertQueuesNotNewer(version: number): void {
  if (version <= LATEST_SCHEMA_VERSION) return;
  throw new TidegateError(
    "database-version",
    `The database is newer than the code: BullMQ's tables have version ${version}, this code knows ` +
      `${LATEST_SCHEMA_VERSION}. Start the version that migrated it.`,
  );
}

/** Queries name tables without their schema. */
async function assertSearchPath(serviceDb: QueryExecutorProvider): Promise<void> {
  const { rows } = await sql<{ schema: string | null }>`select current_schema() as schema`.execute(serviceDb);
  if (rows[0]?.schema === "tidegate") return;
  throw new TidegateError(
    "database-version",
    "The service's role does not see the schema `tidegate` first. Run config/postgres/roles.sql as a superuser.",
  );
}

function behind(what: string): TidegateError {
  return new TidegateError("database-version", `The database ${what}. Run \`npm run migrate\` as the owner.`);
}

/** No such table, or no right to it: nobody has migrated. */
const notMigrated = new Set(["42P01", "3F000", "42501"]);

async function readLedger<Row>(
  serviceDb: QueryExecutorProvider,
  query: ReturnType<typeof sql>,
): Promise<Row[]> {
  try {
    return [...(await query.execute(serviceDb)).rows] as Row[];
  } catch (error) {
    if (notMigrated.has(String((error as { code?: unknown }).code))) throw behind("is not migrated");
    throw new TidegateError("database-unreachable", `Postgres can't be read: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}
