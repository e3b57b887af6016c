import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { isObject, slicesAt, textAt, valueAt, walkMembers, endOfValue } from "../../platform/json-text.ts";
import { UpstreamError, type UpstreamRecord } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { excerptOf } from "../redact.ts";
import { idInUrl, isKey, isSameKey, keyTypeOf } from "./keys.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The JSON object of a successful answer; undefined when it has no body.
 * @throws {UpstreamError} `ambiguous` when it is anything else: the service did something, and did not say what.
 */
export function objectOf({ status, body }: HttpAnswer): string | undefined {
  if (body.length === 0) return undefined;
  try {
    const text = utf8.decode(body);
    JSON.parse(text);
    if (isObject(text)) return text;
  } catch {
    // Told below.
  }
  const facts = { certainty: "ambiguous", disposition: "retry", status, excerpt: excerptOf(body) } as const;
  throw new UpstreamError("the answer is no JSON object", facts);
}

/**
 * The record in an answer about one; undefined when it names none.
 *
 * @param known its ID, where the call had it. An answer with another one says nothing of the record.
 */
export function recordOf(
  answer: HttpAnswer,
  entity: EntityConfig,
  known: string | undefined,
): UpstreamRecord | undefined {
  const body = objectOf(answer);
  const urls = [headerOf(answer, "odata-entityid"), headerOf(answer, "location")];
  const named = body === undefined ? undefined : idIn(body, entity);
  const id = known ?? named ?? idInUrl(urls[0], entity) ?? idInUrl(urls[1], entity);
  if (id === undefined || id === "") return undefined;
  const isOther = named !== undefined && !isSameKey(id, named, keyTypeOf(entity));
  if (isOther) return { id, version: undefined, body: undefined };
  const isRecord = body !== undefined && named !== undefined;
  return {
    id,
    version: versionIn(body, entity, answer),
    body: isRecord ? withoutAnnotations(body) : undefined,
  };
}

/** Some services answer the question for a record that is not there by an empty collection. */
export function isEmptyCollection({ body }: HttpAnswer): boolean {
  if (body.length === 0) return false;
  const value = valueAt(utf8.decode(body), "/value");
  return Array.isArray(value) && value.length === 0;
}

/** A collection's links, as they stand in the answer. */
export interface Links {
  next: string | undefined;
  delta: string | undefined;
  /** What relative links count from. */
  context: string | undefined;
}

/** The records of a collection. */
export function recordsOf(
  answer: HttpAnswer,
  entity: EntityConfig,
): { records: UpstreamRecord[]; links: Links } {
  const { items, links } = collectionOf(answer);
  const records = items.map((body): UpstreamRecord => {
    const id = isObject(body) ? idIn(body, entity) : undefined;
    if (!id) throw unusable("a record of the collection has no ID", answer);
    return { id, version: versionIn(body, entity), body: withoutAnnotations(body) };
  });
  return { records, links };
}

/**
 * The records that an answer to a delta link names: changed, made or deleted. It need not hold more of them than what has
 * changed. What it says of links between records names none.
 */
export function changedIn(answer: HttpAnswer, entity: EntityConfig): { changed: string[]; links: Links } {
  const { items, links } = collectionOf(answer);
  const changed = items.flatMap((body) => {
    const kind = isObject(body) ? /\$(\w+)$/.exec(annotation(body, "context") ?? "")?.[1] : undefined;
    if (kind === "link" || kind === "deletedLink") return [];
    const id = isObject(body) ? changedId(body, entity, kind === "deletedEntity") : undefined;
    if (!id) throw unusable("a change names no record", answer);
    return id;
  });
  return { changed, links };
}

/** In OData 4.0 a deleted record has its URL at `id`, or as some services have it its key; in 4.01 it is marked. */
function changedId(body: string, entity: EntityConfig, isDeleted: boolean): string | undefined {
  if (!isDeleted) return idIn(body, entity) ?? idInUrl(annotation(body, "id"), entity);
  const id = valueAt(body, "/id");
  if (typeof id !== "string") return idInUrl(annotation(body, "id"), entity) ?? idIn(body, entity);
  const keyType = keyTypeOf(entity);
  return idInUrl(id, entity) ?? (keyType !== "string" && isKey(id, keyType) ? id : undefined);
}

function collectionOf(answer: HttpAnswer): { items: string[]; links: Links } {
  const text = objectOf(answer);
  const value = text === undefined ? undefined : textAt(text, "/value");
  if (text === undefined || !value?.startsWith("[")) throw unusable("the answer is no collection", answer);
  const items = slicesAt(value).map(({ start, end }) => value.slice(start, end));
  const [next, delta, context] = ["nextLink", "deltaLink", "context"].map((name) => annotation(text, name));
  return { items, links: { next, delta, context } };
}

export function unusable(message: string, { status }: { status: number }): UpstreamError {
  return new UpstreamError(message, { certainty: "ambiguous", disposition: "park", status });
}

/** What the service says of a failure, by its own error format; the answer's start where that is another one. */
export function errorExcerpt(body: Buffer): string {
  try {
    const { error } = JSON.parse(utf8.decode(body)) as { error: ServiceError };
    const { details } = error;
    const told = { ...said(error), ...(Array.isArray(details) && { details: details.map(said) }) };
    return excerptOf(Buffer.from(JSON.stringify(told)));
  } catch {
    return excerptOf(body);
  }
}

interface ServiceError {
  code?: unknown;
  message?: unknown;
  /** Names a property; `innererror` is left out, since it holds stacks and queries. */
  target?: unknown;
  details?: ServiceError[];
}

function said({ code, message, target }: ServiceError): object {
  return { code, message, field: target };
}

/** IDs are text: a number's digits are taken as they were sent, also beyond 2^53. */
function idIn(body: string, { id }: EntityConfig): string | undefined {
  const token = textAt(body, id);
  if (token?.startsWith('"')) return JSON.parse(token) as string;
  return token !== undefined && /^-?\d/.test(token) ? token : undefined;
}

function versionIn(
  body: string | undefined,
  { version }: EntityConfig,
  answer?: HttpAnswer,
): string | undefined {
  if (version && "pointer" in version && version.pointer !== "/@odata.etag") {
    const token = body === undefined ? undefined : textAt(body, version.pointer);
    return token?.startsWith('"') ? (JSON.parse(token) as string) : token;
  }
  const inBody = body === undefined ? undefined : annotation(body, "etag");
  return inBody ?? (answer && headerOf(answer, version && "header" in version ? version.header : "etag"));
}

/** By its name of OData 4.0, or 4.01's. */
function annotation(text: string, name: string): string | undefined {
  const value = valueAt(text, `/@odata.${name}`) ?? valueAt(text, `/@${name}`);
  return typeof value === "string" ? value : undefined;
}

/** The record alone: properties' names have no `@`, and what describes them always has. */
export function withoutAnnotations(text: string): string {
  if (!text.includes("@")) return text;
  const parts: string[] = [];
  const hasKeys = isObject(text);
  walkMembers(text, (key, start) => {
    const end = endOfValue(text, start);
    const value = text.slice(start, end);
    const inner = /^[{[]/.test(value) ? withoutAnnotations(value) : value;
    if (!hasKeys) parts.push(inner);
    else if (!key.includes("@")) parts.push(`${JSON.stringify(key)}:${inner}`);
    return end;
  });
  return hasKeys ? `{${parts.join(",")}}` : `[${parts.join(",")}]`;
}

function headerOf({ headers }: HttpAnswer, name: string): string | undefined {
  const value = headers[name.toLowerCase()];
  return Array.isArray(value) ? value[0] : value;
}
