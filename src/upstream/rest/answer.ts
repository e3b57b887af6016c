import type { EntityConfig } from "../../platform/config/schema.ts";
import { slicesAt, textAt, valueAt } from "../../platform/json-text.ts";
import { UpstreamError, type UpstreamRecord } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { excerptOf } from "../redact.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The JSON text of a successful answer; undefined when it has no body.
 * @throws {UpstreamError} `ambiguous` when it is not JSON in UTF-8: the upstream did something, and did not say what.
 */
export function jsonOf({ status, body }: HttpAnswer): string | undefined {
  if (body.length === 0) return undefined;
  try {
    const text = utf8.decode(body);
    if (text.trim() === "") return undefined;
    JSON.parse(text);
    return text;
  } catch {
    throw unusable("the answer is not JSON", "retry", { status, excerpt: excerptOf(body) });
  }
}

/** The record that a create was answered with; undefined when the answer does not name it. */
export function createdRecord(
  answer: HttpAnswer,
  entity: EntityConfig,
  chosenId: string | undefined,
): UpstreamRecord | undefined {
  const body = jsonOf(answer);
  const id = idIn(body, entity) ?? idFromLocation(answer, entity) ?? chosenId;
  if (id === undefined) return undefined;
  if (id === "") throw unusable("the upstream gave the record an empty ID", "park", answer);
  return { id, version: versionOf(answer, body, entity), body: objectOrUndefined(body) };
}

/** The record `id` as a read or an update was answered; undefined when the answer has neither state nor version. */
export function knownRecord(
  answer: HttpAnswer,
  entity: EntityConfig,
  id: string,
): UpstreamRecord | undefined {
  const body = objectOrUndefined(jsonOf(answer));
  const version = versionOf(answer, body, entity);
  return body === undefined && version === undefined ? undefined : { id, version, body };
}

/**
 * Those of a search's answers that carry our reference.
 *
 * Where the server answers with other records too, it did not filter; if that answer is one page of many, it proves
 * nothing about the others.
 * @throws {UpstreamError} parked, when the answer is no list, one of ours has no ID, or ours may be on another page.
 */
export function recordsCarrying(answer: HttpAnswer, entity: EntityConfig, tempId: string): UpstreamRecord[] {
  const text = jsonOf(answer);
  if (text === undefined) return [];
  const items = itemsIn(text, entity);
  if (!items) throw unusable("the search was not answered with a list", "park", answer);
  const ours = items.filter((item) => carries(item, entity, tempId));
  if (ours.length === 0 && items.length > 0 && mayHaveMorePages(answer, entity, items.length)) {
    throw unusable("the upstream ignores the search's filter and answers in pages", "park", answer);
  }
  return ours.map((body) => {
    const id = idIn(body, entity);
    if (!id) throw unusable("a record with our reference has no ID", "park", answer);
    return { id, version: versionIn(body, entity), body };
  });
}

/** The records of a list, as they stand in the answer; undefined when it has none where it should. */
export function itemsIn(text: string, { list }: EntityConfig): string[] | undefined {
  const items = list?.items === undefined ? text.trim() : textAt(text, list.items);
  if (!items?.startsWith("[")) return undefined;
  return slicesAt(items).map(({ start, end }) => items.slice(start, end));
}

function carries(item: string, { reference }: EntityConfig, tempId: string): boolean {
  const value = reference === undefined ? undefined : valueAt(item, reference);
  return typeof value === "string" && value.toLowerCase() === tempId.toLowerCase();
}

function mayHaveMorePages({ headers }: HttpAnswer, { list }: EntityConfig, items: number): boolean {
  if (list?.page !== undefined) return true;
  if (/rel="?next\b/i.test(headerOf(headers, "link") ?? "")) return true;
  return Number(headerOf(headers, "x-total-count") ?? 0) > items;
}

/** IDs are text: a number's digits are taken as they were sent, also beyond 2^53. */
export function idIn(body: string | undefined, { id: pointer }: EntityConfig): string | undefined {
  const token = body === undefined ? undefined : textAt(body, pointer);
  if (token === undefined) return undefined;
  if (token.startsWith('"')) return JSON.parse(token) as string;
  return /^-?\d/.test(token) ? token : undefined;
}

/** Only a Location inside the entity's collection names the record; that of a 202 often names a job. */
function idFromLocation({ headers }: HttpAnswer, { path }: EntityConfig): string | undefined {
  const location = headerOf(headers, "location");
  if (location === undefined || !URL.canParse(location, "http://upstream")) return undefined;
  const [id, parent] = new URL(location, "http://upstream").pathname
    .split("/")
    .filter((segment) => segment !== "")
    .toReversed();
  const collection = new URL(path, "http://upstream").pathname.split("/").at(-1);
  return id !== undefined && parent === collection ? decoded(id) : undefined;
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

function versionOf(
  { headers }: HttpAnswer,
  body: string | undefined,
  entity: EntityConfig,
): string | undefined {
  const { version } = entity;
  if (version && "header" in version) return headerOf(headers, version.header.toLowerCase());
  return body === undefined ? undefined : versionIn(body, entity);
}

export function versionIn(body: string, { version }: EntityConfig): string | undefined {
  if (!version || !("pointer" in version)) return undefined;
  const token = textAt(body, version.pointer);
  return token?.startsWith('"') ? (JSON.parse(token) as string) : token;
}

function objectOrUndefined(body: string | undefined): string | undefined {
  return body?.trimStart().startsWith("{") ? body : undefined;
}

export function headerOf(headers: HttpAnswer["headers"], name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

export function unusable(
  message: string,
  disposition: "retry" | "park",
  { status, excerpt }: { status: number; excerpt?: string },
): UpstreamError {
  return new UpstreamError(message, { certainty: "ambiguous", disposition, status, excerpt });
}
