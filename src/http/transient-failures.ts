/** Of Node's network and of Postgres: what passes by itself, so that the client should simply come again. */
const transientCodes = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EPIPE",
  "ETIMEDOUT",
  "40001", // serialization_failure
  "40P01", // deadlock_detected
  "55P03", // lock_not_available
  "57014", // query_canceled: a statement's timeout
  "57P01", // admin_shutdown
  "57P02", // crash_shutdown
  "57P03", // cannot_connect_now
  "57P05", // idle_session_timeout
  "25P03", // idle_in_transaction_session_timeout: the process stood still for a while
  "25006", // read_only_sql_transaction: the connection is to a server that was demoted
]);

/** 08: connection exceptions; 53: insufficient resources, such as too many connections. */
const transientClasses = ["08", "53"];

/** The driver's own errors of a lost or missing connection have no code. */
const transientMessages =
  /^(Connection terminated|timeout exceeded when trying to connect|timeout expired|Client has encountered a connection error|Connection is closed|Query read timeout)/;

/** Whether a failure is of the database's or queue's availability, and no fault of the request or the code. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  if (typeof code !== "string") return transientMessages.test(error.message) || isTransient(error.cause);
  return transientCodes.has(code) || (code.length === 5 && transientClasses.includes(code.slice(0, 2)));
}
