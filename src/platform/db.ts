import { Kysely, PostgresDialect, sql, Transaction } from "kysely";
import { Pool, type ClientBase } from "pg";

import { FrugalClient } from "./pg-client.ts";
import type { Database } from "./schema.ts";

export interface DatabaseOptions {
  poolMax: number;
  /** Called with the errors of connections, idle or in use, which would otherwise end the process. */
  onError: (error: Error) => void;
  /** Called with each new connection, before anybody uses it: statements that it is given here run first. */
  onConnection?: (connection: Pick<ClientBase, "query">) => void;
}

/**
 * Every statement that serves knows its rows by a key, and its plan is kept. A plan that was made while the tables were
 * empty would read them whole for a long time; these settings leave the planner only those that stay good.
 */
const planning = [
  "plan_cache_mode=force_generic_plan",
  "enable_seqscan=off",
  "enable_hashjoin=off",
  "enable_mergejoin=off",
  "jit=off",
];

/**
 * A process that is stopped, or a host that is cut off, in the middle of a transaction keeps its locks, the feed's counter
 * among them, and with that everybody of its tenant. Past this time Postgres takes them back.
 */
const idleInTransactionMs = 5_000;

/** Opens the pool. Nothing is connected before the first query. Statements on one connection are pipelined. */
export function openDatabase(
  connectionString: string,
  { poolMax, onError, onConnection }: DatabaseOptions,
): Kysely<Database> {
  const pool = new Pool({
    connectionString,
    max: poolMax,
    pipeline: true,
    application_name: "tidegate",
    options: planning.map((setting) => `-c ${setting}`).join(" "),
    idle_in_transaction_session_timeout: idleInTransactionMs,
    Client: FrugalClient,
  });
  // A connection that breaks while it is in use tells only its own listeners; without one, that ends the process.
  pool.on("connect", (client) => {
    client.on("error", onError);
    onConnection?.(client);
  });
  pool.on("error", () => undefined);
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) });
}

/**
 * Runs `work` in one transaction that sees the rows of one tenant and no other (row-level security).
 *
 * The statement that sets the tenant is not awaited before the first of `work`: the connection runs them in order,
 * and a failure of it fails all that follow. So the beginning of a transaction costs no round trip.
 */
export async function inTenant<T>(
  db: Kysely<Database>,
  tenantId: string,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  return await db.transaction().execute((trx) => asTenant(trx, tenantId, work));
}

/**
 * Like `inTenant`, with the commit sent right behind the last statement: one round trip less.
 *
 * @param work resolves with its result and with its last statement, not awaited. When that fails, nothing is committed.
 */
export async function inTenantWithLast<T>(
  db: Kysely<Database>,
  tenantId: string,
  work: (trx: Transaction<Database>) => Promise<{ result: T; last: Promise<unknown> | undefined }>,
): Promise<T> {
  let last: Promise<unknown> | undefined;
  try {
    return await inTenant(db, tenantId, async (trx) => {
      const done = await work(trx);
      ({ last } = done);
      last?.catch(() => undefined);
      return done.result;
    });
  } finally {
    // Its failure says more than that of the commit.
    await last;
  }
}

/**
 * Like `inTenant`, for work whose statements are all sent at once: they leave together with the beginning and the end of
 * their transaction. When it resolves, it is committed.
 */
export async function inTenantAtOnce<T>(
  db: Kysely<Database>,
  tenantId: string,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  const done: { last?: Promise<T> } = {};
  await inTenantWithLast(db, tenantId, async (trx) => {
    done.last = work(trx);
    return await Promise.resolve({ result: undefined, last: done.last });
  });
  return await (done.last as Promise<T>);
}

/**
 * Like `inTenant`, for reads: every statement of `work` sees the database as it was at one moment. When it resolves, the
 * transaction may still be about to end: there is nothing that could be lost with it.
 */
export async function inTenantSnapshot<T>(
  db: Kysely<Database>,
  tenantId: string,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  return await new Promise((resolve, reject) => {
    db.transaction()
      .setIsolationLevel("repeatable read")
      .setAccessMode("read only")
      .execute(async (trx) => resolve(await asTenant(trx, tenantId, work)))
      .catch(reject);
  });
}

async function asTenant<T>(
  trx: Transaction<Database>,
  tenantId: string,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  return await pipelined(trx, async (pipeline) => {
    const tenantSet = sql`select set_config('tidegate.tenant_id', ${tenantId}, true)`.execute(pipeline);
    const [, result] = await Promise.all([tenantSet, work(pipeline)]);
    return result;
  });
}

/** What a transaction has besides its executor; it is begun and ended by the one that it is made of. */
const dialect = new PostgresDialect({
  pool: () => Promise.reject(new Error("a transaction has its connection")),
});
const parts = { config: { dialect }, dialect, driver: dialect.createDriver() };

/**
 * Kysely sends a statement of a transaction only when the one before it was answered. Ours are sent as they come: the
 * connection runs them in that order, and a failure of one fails all behind it.
 */
async function pipelined<T>(
  trx: Transaction<Database>,
  work: (pipeline: Transaction<Database>) => Promise<T>,
): Promise<T> {
  const executor = trx.getExecutor();
  return await executor.provideConnection(async (connection) => {
    const atOnce = executor.withConnectionProvider({ provideConnection: (consumer) => consumer(connection) });
    return await work(new Transaction<Database>({ ...parts, executor: atOnce }));
  });
}
