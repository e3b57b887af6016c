import type { EntityConfig } from "../../platform/config/schema.ts";
import { isObject, slicesAt, textAt, valueAt, walkMembers, endOfValue } from "../../platform/json-text.ts";
import { UpstreamError, type UpstreamPage, type UpstreamRecord } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { excerptOf } from "../redact.ts";
import { idInUrl } from "./keys.ts";

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

/** The record in an answer about one; undefined when it names none. @param known its ID, where the call had it */
export function recordOf(
  answer: HttpAnswer,
  entity: EntityConfig,
  known: string | undefined,
): UpstreamRecord | undefined {
  const body = objectOf(answer);
  const urls = [headerOf(answer, "odata-entityid"), headerOf(answer, "location")];
  const named = body === undefined ? undefined : idIn(body, entity);
  const id = known ?? named ?? idInUrl(urls[0], entity.path) ?? idInUrl(urls[1], entity.path);
  if (id === undefined || id === "") return undefined;
  const version = versionIn(body, entity, answer);
  // An update that was answered with another object than the record says nothing of its state.
  const isRecord = body !== undefined && named !== undefined;
  return { id, version, body: isRecord ? withoutAnnotations(body) : undefined };
}

/** The records of a collection, and the link to the next page as it stands in the answer. */
export function collectionOf(answer: HttpAnswer, entity: EntityConfig): UpstreamPage & { context?: string } {
  const text = objectOf(answer);
  const value = text === undefined ? undefined : textAt(text, "/value");
  if (text === undefined || !value?.startsWith("[")) throw unusable("the answer is no collection", answer);
  const records = slicesAt(value).map(({ start, end }): UpstreamRecord => {
    const body = value.slice(start, end);
    const id = isObject(body) ? idIn(body, entity) : undefined;
    if (!id) throw unusable("a record of the collection has no ID", answer);
    return { id, version: versionIn(body, entity), body: withoutAnnotations(body) };
  });
  const context = annotation(text, "context");
  return { records, next: annotation(text, "nextLink"), ...(context !== undefined && { context }) };
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
