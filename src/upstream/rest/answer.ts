import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { AnswerConfig, VersionConfig } from "../../platform/config/operation-schema.ts";
import { slicesAt, textAt, valueAt } from "../../platform/json-text.ts";
import { UpstreamError, type UpstreamRecord } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { excerptOf } from "../redact.ts";
import { textOf, toText } from "./text.ts";
import type { EntityUrls } from "./urls.ts";

/** An entity, and where its records are. */
export interface PlacedEntity extends EntityConfig {
  urls: EntityUrls;
}

/**
 * The JSON text of a successful answer; undefined when it has no body.
 * @throws {UpstreamError} `ambiguous` when it is not JSON: the upstream did something, and did not say what.
 */
export function jsonOf(answer: HttpAnswer): string | undefined {
  const { status, body } = answer;
  if (isBlank(body)) return undefined;
  refusePage(answer);
  const text = textOf(answer);
  if (text === undefined)
    throw unusable("the answer is not JSON", "retry", { status, excerpt: excerptOf(body) });
  return text;
}

/**
 * A web page is what logins and proxies answer, also under status 200.
 * @throws {UpstreamError} `ambiguous` for one
 */
export function refusePage({ status, body }: HttpAnswer): void {
  const start = body.subarray(0, 200).toString("latin1").trimStart();
  if (/^(\xef\xbb\xbf)?\s*<(!doctype html|html)[\s>]/i.test(start))
    throw unusable("the answer is a web page", "retry", { status, excerpt: excerptOf(body) });
}

function isBlank(body: Buffer): boolean {
  return body.length < 100 && body.toString().trim() === "";
}

/**
 * The record that a create was answered with; undefined when the answer does not name it.
 *
 * @param sent the record as it was sent: it says where the record is, where that takes more than an ID
 */
export function createdRecord(
  answer: HttpAnswer,
  entity: PlacedEntity,
  { sent, chosenId }: { sent: string; chosenId: string | undefined },
): UpstreamRecord | undefined {
  const said = saidBy(answer, entity, entity.create.answer);
  const own = said.id ?? idFromLocation(answer, entity) ?? chosenId;
  if (own === undefined) return undefined;
  if (own === "") throw unusable("the upstream gave the record an empty ID", "park", answer);
  return { id: placed(() => entity.urls.idOf(own, sent), answer), version: said.version, body: said.record };
}

/** The record `id` as a read or an update was answered; undefined when the answer has neither state nor version. */
export function knownRecord(
  answer: HttpAnswer,
  entity: PlacedEntity,
  id: string,
  form?: AnswerConfig,
): UpstreamRecord | undefined {
  const { record, version } = saidBy(answer, entity, form);
  return record === undefined && version === undefined ? undefined : { id, version, body: record };
}

interface Said {
  record: string | undefined;
  id: string | undefined;
  version: string | undefined;
}

/** What an answer says of the record that it is about: as the operation's `answer` tells, else by the record in it. */
function saidBy(answer: HttpAnswer, entity: EntityConfig, form: AnswerConfig | undefined): Said {
  const text = form && !isRead(form) ? unread(answer) : jsonOf(answer);
  const at = form ? form.record : entity.envelope?.answer;
  const holder = form && form.record === undefined ? undefined : text;
  const record = objectOrUndefined(at === undefined || holder === undefined ? holder : textAt(holder, at));
  return {
    record,
    id: form?.id === undefined ? idIn(record, entity) : text && tokenIn(text, form.id),
    version: versionOf(answer, { text, record }, { ofAnswer: form?.version, ofRecord: entity.version }),
  };
}

/** Whether an operation's answer holds anything that counts; "OK" is an answer too. */
function isRead({ record, id, version }: AnswerConfig): boolean {
  return record !== undefined || id !== undefined || (version !== undefined && "pointer" in version);
}

function unread(answer: HttpAnswer): undefined {
  refusePage(answer);
}

function versionOf(
  { headers }: HttpAnswer,
  { text, record }: { text: string | undefined; record: string | undefined },
  { ofAnswer, ofRecord }: { ofAnswer: VersionConfig | undefined; ofRecord: VersionConfig | undefined },
): string | undefined {
  const version = ofAnswer ?? ofRecord;
  if (version && "header" in version) return headerOf(headers, version.header.toLowerCase());
  const holder = ofAnswer ? text : record;
  return version && holder !== undefined ? tokenAt(holder, version.pointer) : undefined;
}

/** Where the record is can't be told: it exists, and a person has to find it. */
function placed(id: () => string, answer: { status: number }): string {
  try {
    return id();
  } catch (error) {
    throw unusable((error as Error).message, "park", answer);
  }
}

/**
 * Those of a search's answers that carry our reference.
 *
 * Where the server answers with other records too, it did not filter; if that answer is one page of many, it proves
 * nothing about the others.
 * @throws {UpstreamError} parked, when the answer is no list, one of ours has no ID, or ours may be on another page.
 */
export function recordsCarrying(answer: HttpAnswer, entity: PlacedEntity, tempId: string): UpstreamRecord[] {
  if (answer.status === entity.found?.noneStatus) return [];
  const text = jsonOf(answer);
  if (text === undefined) return [];
  const found = foundIn(text, entity);
  if (!found) throw unusable(`the search was not answered with ${formOf(entity)}`, "park", answer);
  const ours = found.filter((item) => carries(item, entity, tempId));
  if (ours.length === 0 && found.length > 0 && mayHaveMorePages(answer, entity, found.length)) {
    throw unusable("the upstream ignores the search's filter and answers in pages", "park", answer);
  }
  return ours.map((body) => {
    const record = listedRecord(body, entity, answer);
    if (!record) throw unusable("a record with our reference has no ID", "park", answer);
    return record;
  });
}

function formOf({ found, list }: EntityConfig): string {
  if (found?.single) return "one record";
  const { items } = found ?? list ?? {};
  const where = items === undefined ? "a list" : `a list at ${items}`;
  return found === undefined && items !== undefined
    ? `${where}, as \`list\` says; \`found\` may say otherwise for searches`
    : where;
}

/** What a search found; undefined when the answer has not the form that it should. */
function foundIn(text: string, { found, list, envelope }: EntityConfig): string[] | undefined {
  if (found === undefined) return itemsIn(text, list);
  if (!found.single) return itemsIn(text, found);
  const at = found.record ?? envelope?.answer;
  const record = at === undefined ? text : textAt(text, at);
  if (record === "null") return [];
  const object = objectOrUndefined(record);
  return object === undefined ? undefined : [object];
}

/** A record of a list or a search, whole as it stands there; undefined when it has no ID. */
export function listedRecord(
  body: string,
  entity: PlacedEntity,
  answer: { status: number },
): UpstreamRecord | undefined {
  const own = idIn(body, entity);
  if (!own) return undefined;
  return { id: placed(() => entity.urls.idOf(own, body), answer), version: versionIn(body, entity), body };
}

/** Where an answer holds records: a list, and in each of its elements the record. */
interface Records {
  items?: string;
  record?: string;
}

/**
 * The records of a list, as they stand in the answer; undefined when it has none where it should. An element that says
 * null in the record's place has none.
 */
export function itemsIn(text: string, { items: at, record }: Records = {}): string[] | undefined {
  const items = at === undefined ? text.trim() : textAt(text, at);
  if (!items?.startsWith("[")) return undefined;
  const elements = slicesAt(items).map(({ start, end }) => items.slice(start, end));
  if (record === undefined) return elements;
  const records = elements.map((element) => textAt(element, record) ?? element);
  return records.filter((each) => each !== "null");
}

function carries(item: string, { reference }: EntityConfig, tempId: string): boolean {
  const value = reference === undefined ? undefined : valueAt(item, reference);
  return typeof value === "string" && value.toLowerCase() === tempId.toLowerCase();
}

function mayHaveMorePages({ headers }: HttpAnswer, { list }: EntityConfig, items: number): boolean {
  if (list?.page ?? list?.offset ?? list?.cursor ?? list?.next) return true;
  if (/rel="?next\b/i.test(headerOf(headers, "link") ?? "")) return true;
  return Number(headerOf(headers, "x-total-count") ?? 0) > items;
}

export function idIn(body: string | undefined, { id: pointer }: EntityConfig): string | undefined {
  return body === undefined ? undefined : tokenIn(body, pointer);
}

function tokenIn(text: string, pointer: string): string | undefined {
  const token = textAt(text, pointer);
  return token === undefined ? undefined : toText(token);
}

/** Only the URL of a record names one; that of a 202 often names a job. */
function idFromLocation({ headers }: HttpAnswer, { urls }: PlacedEntity): string | undefined {
  const location = headerOf(headers, "location");
  return location === undefined ? undefined : urls.ownIdAt(location);
}

export function versionIn(body: string, { version }: EntityConfig): string | undefined {
  return version && "pointer" in version ? tokenAt(body, version.pointer) : undefined;
}

/** A version: a text, or any other value as it is written. */
function tokenAt(text: string, pointer: string): string | undefined {
  const token = textAt(text, pointer);
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
