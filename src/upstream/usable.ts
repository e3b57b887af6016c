import { UpstreamError, type UpstreamRecord } from "./connector.ts";

const charsMax = 1000;

/** Whether a name can be kept: Postgres' text has no NUL, UTF-8 no half characters, and an index takes no name of pages. */
export function isUsableName(value: unknown, max = charsMax): value is string {
  if (typeof value !== "string" || value === "" || value.length > max) return false;
  return !value.includes("\0") && value.isWellFormed();
}

/**
 * The record itself.
 * @throws {UpstreamError} `ambiguous`, parked, when its ID or its version is none that could be kept
 */
export function usable<R extends Pick<UpstreamRecord, "id" | "version">>(record: R): R {
  if (isUsableName(record.id) && (record.version === undefined || isUsableName(record.version)))
    return record;
  const what = isUsableName(record.id) ? "version" : "ID";
  throw new UpstreamError(`the upstream gave a record's ${what} that can't be kept`, {
    certainty: "ambiguous",
    disposition: "park",
  });
}
