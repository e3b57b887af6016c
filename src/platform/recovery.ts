import { Client } from "pg";

import { assertDatabaseReachable } from "./database-check.ts";
import { TidegateError } from "./errors.ts";
import { readInstallation, type Installation } from "./installation.ts";

export interface RecoverOptions {
  /** Without it nothing is written. */
  isMeant: boolean;
  /** Recovers also a database that looks the same: a snapshot of its disk was put back. */
  isSnapshot: boolean;
}

export interface Recovered {
  /** `same`: it is the database that was served, and nothing was done. */
  kind: "same" | "would" | "done";
  before: Installation;
  /** As it is afterwards; for `would`, as before. */
  after: Installation;
}

/**
 * Lets a database that was put back to an earlier moment be served again, in one transaction: under its new identity,
 * with a new epoch of the feed, and with the moment before which whatever occurred may have been replayed already.
 *
 * @param url connects as the owner or as the service.
 * @throws {TidegateError} `database-unreachable`; `recovery-needed` when it is a standby, which can't be served.
 */
export async function recoverDatabase(url: string, options: RecoverOptions): Promise<Recovered> {
  await assertDatabaseReachable(url);
  const client = new Client({ connectionString: url, application_name: "tidegate-recover" });
  await client.connect();
  try {
    return await recoverIn(client, options);
  } finally {
    await client.end();
  }
}

async function recoverIn(client: Client, { isMeant, isSnapshot }: RecoverOptions): Promise<Recovered> {
  const ask = async (text: string) => await client.query<Record<string, unknown>>(text);
  await client.query("begin");
  // Two who recover at once would give two epochs.
  if (isMeant) await client.query("select 1 from installation for update");
  const before = await readInstallation(ask);
  if (before.identity === undefined) throw isStandby();
  const isSame = before.servedAs === undefined || before.identity === before.servedAs;
  const kind = isSame && !isSnapshot ? "same" : isMeant ? "done" : "would";
  if (kind === "done") await client.query(recover);
  const after = await readInstallation(ask);
  await client.query("commit");
  return { kind, before, after };
}

const recover = `
  update installation set served_as = database_identity(), epoch = gen_random_uuid(), recovered_at = clock_timestamp()`;

function isStandby(): TidegateError {
  return new TidegateError("recovery-needed", "The database is a standby. Promote it first.");
}
