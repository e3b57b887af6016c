import type { ListConfig } from "../../platform/config/entity-schema.ts";
import { valueAt } from "../../platform/json-text.ts";
import type { UpstreamPage } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { headerOf, itemsIn, jsonOf, listedRecord, unusable, type PlacedEntity } from "./answer.ts";

/** Where a list begins: of everything, or of what has changed since. */
export function firstPage(collection: string, list: ListConfig | undefined, since: Date | undefined): string {
  if (list === undefined) return collection;
  const { firstPage: number = 1, pageSize = 100 } = list;
  const url = new URL(collection, "http://upstream");
  if (list.since !== undefined && since) url.searchParams.set(...sinceParameter(list.since, since));
  if (list.page !== undefined) url.searchParams.set(list.page, String(number));
  if (list.offset !== undefined) url.searchParams.set(list.offset, "0");
  if (list.size !== undefined) url.searchParams.set(list.size, String(pageSize));
  return url.pathname + url.search;
}

function sinceParameter(template: string, since: Date): [name: string, value: string] {
  const [, name = "", value = "{since}"] = /^([^=]*)(?:=(.*))?$/.exec(template) ?? [];
  const forms = {
    "{since}": since.toISOString(),
    "{sinceMs}": String(since.getTime()),
    "{sinceSeconds}": String(Math.floor(since.getTime() / 1000)),
  };
  return [name, value.replaceAll(/\{since(?:Ms|Seconds)?\}/g, (form) => forms[form as keyof typeof forms])];
}

interface Asked {
  url: URL;
  isFirst: boolean;
}

/**
 * The page that was answered, and where the next one is: where the answer says, else under the next number.
 *
 * A page without records is the last, unless the answer says where the next one is.
 * @throws {UpstreamError} parked, when the answer is no list, one of its records has no ID, its link leads to another
 * origin, or there is more of which it does not say where.
 */
export function pageOf(answer: HttpAnswer, entity: PlacedEntity, asked: Asked): UpstreamPage {
  const text = jsonOf(answer) ?? "";
  const items = itemsIn(text, entity.list);
  if (!items) throw unusable(`the answer has no list${atItems(entity)}`, "park", answer);
  const records = items.map((body) => {
    const record = listedRecord(body, entity, answer);
    if (!record) throw unusable("a record of the list has no ID", "park", answer);
    return record;
  });
  return { records, next: nextOf({ answer, text, count: items.length }, entity.list ?? {}, asked) };
}

function atItems({ list }: PlacedEntity): string {
  return list?.items === undefined ? ": where is it (`list.items`)?" : ` at ${list.items}`;
}

interface Answered {
  answer: HttpAnswer;
  text: string;
  count: number;
}

function nextOf({ answer, text, count }: Answered, list: ListConfig, asked: Asked): string | undefined {
  const { url, isFirst } = asked;
  if (list.cursor) return byCursor(text, list.cursor, url, answer);
  const link = list.next === undefined ? nextLink(answer) : saidIn(text, list.next, answer);
  // Behind a proxy that changes the host, links lead to a host of the other side; numbers need none.
  const number = list.page ?? list.offset;
  const isNumbered = number !== undefined && url.searchParams.has(number);
  if (link !== undefined && (!isNumbered || isAt(link, url))) return linked(link, url, answer);
  if (list.next !== undefined || count === 0) return undefined;
  if (list.page !== undefined) return counted(url, list.page, 1);
  if (list.offset !== undefined) return counted(url, list.offset, count);
  if (isFirst && Number(headerOf(answer.headers, "x-total-count") ?? 0) > count) {
    throw unusable("the list has more than its only page", "park", answer);
  }
  return undefined;
}

/** A link led away from the numbers when there is none. */
function counted(from: URL, parameter: string, by: number): string | undefined {
  const number = from.searchParams.get(parameter);
  return number !== null && /^\d+$/.test(number)
    ? withParameter(from, parameter, Number(number) + by)
    : undefined;
}

function byCursor(
  text: string,
  { at, parameter }: NonNullable<ListConfig["cursor"]>,
  from: URL,
  answer: HttpAnswer,
): string | undefined {
  const cursor = saidIn(text, at, answer);
  if (cursor === undefined) return undefined;
  if (cursor === from.searchParams.get(parameter))
    throw unusable("the list's cursor stays where it is", "park", answer);
  return withParameter(from, parameter, cursor);
}

/** A list ends where there is nothing, null, false or an empty text. */
function saidIn(text: string, pointer: string, answer: HttpAnswer): string | undefined {
  const value = valueAt(text, pointer) ?? undefined;
  if (value === undefined || value === "" || value === false) return undefined;
  if (typeof value !== "string" && typeof value !== "number")
    throw unusable("the list does not say where it goes on", "park", answer);
  return String(value);
}

function withParameter(from: URL, parameter: string, value: string | number): string {
  const next = new URL(from);
  next.searchParams.set(parameter, String(value));
  return next.pathname + next.search;
}

function isAt(link: string, from: URL): boolean {
  return URL.canParse(link, from.href) && new URL(link, from).origin === from.origin;
}

/** Our token goes to nobody else. */
function linked(link: string, from: URL, answer: HttpAnswer): string {
  if (!isAt(link, from))
    throw unusable("the list goes on at another origin; `page` or `offset` need no links", "park", answer);
  const next = new URL(link, from);
  return next.pathname + next.search;
}

/** The target of the link (RFC 8288) to the next page. */
function nextLink({ headers }: HttpAnswer): string | undefined {
  const { link } = headers;
  const text = Array.isArray(link) ? link.join(",") : (link ?? "");
  for (const [, target, parameters = ""] of text.matchAll(/<([^<>]*)>((?:[^<>",]|"[^"]*")*)/g)) {
    const relation = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;]+))/i.exec(parameters);
    const names = (relation?.[1] ?? relation?.[2] ?? "").toLowerCase().split(/\s+/);
    if (names.includes("next")) return target;
  }
  return undefined;
}
