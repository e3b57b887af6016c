import { stringifyRaw } from "../http/raw-json.ts";
import type { Change } from "./read.ts";

/** Text of an event stream, as the HTML standard has it. */
export function eventText(event: string, json: string, id?: string): string {
  return `${id === undefined ? "" : `id: ${id}\n`}event: ${event}\ndata: ${inLines(json)}\n\n`;
}

/** Nothing for readers; it keeps proxies from hanging up. */
export const commentText = ":\n\n";

/** After how long a reader whose connection broke comes back, by itself. */
export function retryText(ms: number): string {
  return `retry: ${Math.round(ms)}\n\n`;
}

const texts = new WeakMap<Change, string>();

/** One text for all who are told the same. */
export function changeJson(change: Change): string {
  const known = texts.get(change);
  if (known !== undefined) return known;
  const text = stringifyRaw(change);
  texts.set(change, text);
  return text;
}

/** A record's data may come with line breaks from wherever it was written; in JSON they are only space. */
function inLines(json: string): string {
  return /[\r\n]/.test(json) ? json.replaceAll(/\r\n|\r|\n/g, "\ndata: ") : json;
}
