import { TidegateError } from "./platform/errors.ts";
import { migrate } from "./platform/migrate.ts";

/** `npm run migrate`: brings the database to this version, as its owner. */
async function main(env: NodeJS.ProcessEnv): Promise<void> {
  const ownerUrl = env["MIGRATION_DATABASE_URL"] ?? env["DATABASE_URL"];
  if (ownerUrl === undefined) {
    throw new TidegateError(
      "config-invalid",
      "Set MIGRATION_DATABASE_URL (or DATABASE_URL) to the database's owner. The embedded Postgres needs no migration " +
        "by hand: it is migrated at each start.",
    );
  }
  const { applied } = await migrate(ownerUrl, { serviceRole: env["TIDEGATE_SERVICE_ROLE"] ?? "tidegate" });
  for (const name of applied) process.stdout.write(`applied ${name}\n`);
  process.stdout.write(
    applied.length === 0 ? "the database was up to date\n" : "the database is up to date\n",
  );
}

try {
  await main(process.env);
} catch (error) {
  if (!(error instanceof TidegateError)) throw error;
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = 1;
}
