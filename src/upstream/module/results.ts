import type { Page } from "../../connector-module.ts";
import type { UpstreamPage, UpstreamRecord } from "../connector.ts";
import { isUsableName } from "../usable.ts";
import { nonsense } from "./failures.ts";

const placeCharsMax = 8000;
const bodyCharsMax = 4 * 1024 * 1024;

/** What is asked of a record besides its form. */
interface Asked {
  /** The record that it has to be. */
  id?: string;
  withBody?: boolean;
}

/** A copy of the record that a module gave. @throws {UpstreamError} when it is none, or another than was asked for. */
export function toRecord(value: unknown, { id: asked, withBody = false }: Asked = {}): UpstreamRecord {
  if (typeof value !== "object" || value === null) throw nonsense("something else than a record");
  const { id, version, body } = value as Record<string, unknown>;
  if (!isUsableName(id)) throw nonsense("a record without a usable ID");
  if (asked !== undefined && id !== asked) throw nonsense("another record than was asked for");
  if (version !== undefined && !isUsableName(version)) throw nonsense("a version of no use");
  if (body !== undefined && !isObjectText(body))
    throw nonsense("a record that is not the text of a JSON object");
  if (body === undefined && withBody) throw nonsense("a record without its state");
  return { id, version, body };
}

export function toRecords(value: unknown): UpstreamRecord[] {
  if (!Array.isArray(value)) throw nonsense("something else than a list of records");
  return value.map((each) => toRecord(each, { withBody: true }));
}

export function toPage(value: unknown, after: string | undefined): UpstreamPage {
  if (typeof value !== "object" || value === null) throw nonsense("something else than a page");
  const { records, next } = value as Partial<Page>;
  if (next !== undefined && !isUsableName(next, placeCharsMax)) throw nonsense("a next page of no use");
  if (next !== undefined && next === after) throw nonsense("the same page as the next one");
  return { records: toRecords(records), next };
}

function isObjectText(value: unknown): value is string {
  if (typeof value !== "string" || value.length > bodyCharsMax || !value.isWellFormed()) return false;
  try {
    JSON.parse(value);
    return value.trimStart().startsWith("{");
  } catch {
    return false;
  }
}
