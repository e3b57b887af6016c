import type { HttpAnswer } from "../http-client.ts";
import { unusable } from "./answer.ts";

const mark = "changes:";

/** The name of a page of changes, which is read in another way than one of records. */
export function changesPlace(path: string): string {
  return mark + path;
}

/** Where the page of that name is. */
export function toPath(place: string): { path: string; isChanges: boolean } {
  const isChanges = place.startsWith(mark);
  return { path: isChanges ? place.slice(mark.length) : place, isChanges };
}

/**
 * The path and query of a link. Relative ones count from the context's URL, or else from the request's.
 * @throws {UpstreamError} parked, when it leads to another origin: our token goes to nobody else.
 */
export function linked(link: string, asked: URL, context: string | undefined, answer: HttpAnswer): string {
  const stated = context !== undefined && URL.canParse(context, asked.href) ? new URL(context, asked) : asked;
  const base = stated.origin === asked.origin ? stated : asked;
  const next = URL.canParse(link, base.href) ? new URL(link, base) : undefined;
  if (next?.origin !== asked.origin) throw unusable("the list goes on at another origin", answer);
  return next.pathname + next.search;
}
