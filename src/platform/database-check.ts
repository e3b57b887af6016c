import { Client } from "pg";

import { TidegateError } from "./errors.ts";

const connectTimeoutMs = 5000;

/**
 * Connects once, so that a start against an absent database fails within seconds and names it.
 * @throws {TidegateError} `database-unreachable` with host, port and the driver's reason; never the password.
 */
export async function assertDatabaseReachable(connectionString: string): Promise<void> {
  const client = openClient(connectionString);
  // A server that is going down can break the connection after it was made; the caller's pool will notice.
  client.on("error", () => undefined);
  try {
    await client.connect();
    await client.query("select 1");
  } catch (error) {
    throw unreachable(client, error);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The driver's error about a connection string holds the string, and with it the password. It is left out. */
function openClient(connectionString: string): Client {
  try {
    return new Client({ connectionString, connectionTimeoutMillis: connectTimeoutMs });
  } catch {
    throw new TidegateError("database-unreachable", "The connection string of the database is not valid.");
  }
}

function unreachable({ host, port }: Client, error: unknown): TidegateError {
  return new TidegateError(
    "database-unreachable",
    `Postgres at ${host}:${port} can't be reached: ${reasonOf(error)}`,
    { cause: error },
  );
}

/** What went wrong with a connection. Several addresses of one host fail with one error that has no message. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reasonOf).join("; ");
  return error instanceof Error ? error.message : String(error);
}
