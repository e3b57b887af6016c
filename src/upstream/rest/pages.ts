import type { EntityConfig, ListConfig } from "../../platform/config/schema.ts";
import type { UpstreamPage, UpstreamRecord } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";
import { headerOf, idIn, itemsIn, jsonOf, unusable, versionIn } from "./answer.ts";

/** Few enough that an answer stays small; a server may give fewer. */
const sizeAsked = 100;

/** Where a list begins: of everything, or of what has changed since. */
export function firstPage(collection: string, list: ListConfig | undefined, since: Date | undefined): string {
  const url = new URL(collection, "http://upstream");
  if (list?.since !== undefined && since) url.searchParams.set(list.since, since.toISOString());
  if (list?.page !== undefined) url.searchParams.set(list.page, "1");
  if (list?.size !== undefined) url.searchParams.set(list.size, String(sizeAsked));
  return url.pathname + url.search;
}

interface Asked {
  url: URL;
  isFirst: boolean;
}

/**
 * The page that was answered, and where the next one is: where a link says, else under the next number.
 *
 * @throws {UpstreamError} parked, when the answer is no list, one of its records has no ID, its link leads to another
 * origin, or there is more of which it does not say where.
 */
export function pageOf(answer: HttpAnswer, entity: EntityConfig, asked: Asked): UpstreamPage {
  const items = itemsIn(jsonOf(answer) ?? "", entity);
  if (!items) throw unusable("the list was not answered with one", "park", answer);
  const records = items.map((body): UpstreamRecord => {
    const id = idIn(body, entity);
    if (!id) throw unusable("a record of the list has no ID", "park", answer);
    return { id, version: versionIn(body, entity), body };
  });
  return { records, next: records.length === 0 ? undefined : nextOf(answer, entity, asked, records.length) };
}

function nextOf(
  answer: HttpAnswer,
  { list }: EntityConfig,
  { url, isFirst }: Asked,
  count: number,
): string | undefined {
  const link = nextLink(answer);
  if (link !== undefined) return linked(link, url, answer);
  const number = list?.page === undefined ? null : url.searchParams.get(list.page);
  if (list?.page !== undefined && number !== null && /^\d+$/.test(number)) {
    const next = new URL(url);
    next.searchParams.set(list.page, String(Number(number) + 1));
    return next.pathname + next.search;
  }
  if (isFirst && Number(headerOf(answer.headers, "x-total-count") ?? 0) > count) {
    throw unusable("the list has more than its only page", "park", answer);
  }
  return undefined;
}

/** Our token goes to nobody else. */
function linked(link: string, from: URL, answer: HttpAnswer): string {
  const next = URL.canParse(link, from.href) ? new URL(link, from) : undefined;
  if (next?.origin !== from.origin) throw unusable("the list goes on at another origin", "park", answer);
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
