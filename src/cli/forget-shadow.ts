import type { Kysely } from "kysely";

import { loadConfig } from "../platform/config/load.ts";
import type { Config } from "../platform/config/schema.ts";
import { assertDatabaseReachable } from "../platform/database-check.ts";
import { inTenant, openDatabase } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { Database } from "../platform/schema.ts";
import { assertSchemaIsCurrent } from "../platform/schema-version.ts";
import { clearForgotten, forgetShadow, readStanding, type Standing } from "../replay/shadows/forget.ts";
import type { ShadowId } from "../replay/shadows/register.ts";
import { atDatabase } from "./at-database.ts";

interface ForgetOptions {
  env: NodeJS.ProcessEnv;
  /** Without it nothing is written. */
  isMeant: boolean;
  givesUp: boolean;
  by: string;
  write: (text: string) => void;
}

/**
 * Forgets a shadow that the configuration names no longer. Repeated, also after it was ended in the middle, it does the
 * rest.
 *
 * @throws {TidegateError} `config-invalid`; `command-refused` while the configuration names the shadow, or something is open
 * in it that is not given up; `not-found`; `database-unreachable`; `database-version`.
 */
export async function forgetShadowOf(
  file: string,
  id: ShadowId,
  { env, write, ...options }: ForgetOptions,
): Promise<number> {
  assertNotNamed(loadConfig(file, env).config, id, file);
  const standing = await atDatabase(env, async (url) => {
    await assertDatabaseReachable(url);
    const db = openDatabase(url, { poolMax: 1, onError: () => undefined });
    try {
      await assertSchemaIsCurrent(db, { queuesOnPostgres: false });
      return await forgetIn(db, id, options);
    } finally {
      await db.destroy();
    }
  });
  write(`${tell(standing, options)}\n`);
  return 0;
}

/** In whatever role: what a former shadow calls the records is needed for as long as anything goes to it. */
function assertNotNamed({ tenants }: Config, { tenantId, upstreamId }: ShadowId, file: string): void {
  if (!Object.hasOwn(tenants, tenantId) || !Object.hasOwn(tenants[tenantId]?.upstreams ?? {}, upstreamId))
    return;
  throw new TidegateError(
    "command-refused",
    `${file} names ${tenantId}/${upstreamId}: take it out, and restart every process.`,
  );
}

const rowsMax = 500;

async function forgetIn(
  db: Kysely<Database>,
  id: ShadowId,
  { isMeant, ...how }: Omit<ForgetOptions, "env" | "write">,
): Promise<Standing> {
  const standing = isMeant ? await forgetShadow(db, id, how) : await readStanding(db, id);
  if (standing.kind === "unknown") throw new TidegateError("not-found", "The tenant has no such shadow.");
  const clear = async (): Promise<number> =>
    await inTenant(db, id.tenantId, (trx) => clearForgotten(trx, id.tenantId, rowsMax));
  if (isMeant) while ((await clear()) > 0);
  return standing;
}

function tell({ openChanges }: Standing, { isMeant }: Pick<ForgetOptions, "isMeant">): string {
  const open = `Changes that are open in it: ${openChanges}.`;
  return isMeant
    ? `The shadow is forgotten. ${open} The log that it leaves is pruned within about a day.`
    : `Nothing was changed. ${open} With --yes the shadow is forgotten, and what its system calls the records; with ` +
        "--give-up also what is open in it. Every process has to run without it before.";
}
