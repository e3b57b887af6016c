import { canonicalJson } from "../platform/canonical-json.ts";
import { isObject, slicesAt } from "../platform/json-text.ts";

/**
 * Whether a record holds what was sent: every member of a create's data or of a merge patch has its value there. To
 * set null is to remove, and many systems keep the null: both count.
 */
export function holds(current: string | undefined, sent: string): boolean {
  if (isNull(sent)) return current === undefined || isNull(current);
  if (!isObject(sent)) return current !== undefined && canonicalJson(current) === canonicalJson(sent);
  if (current === undefined || !isObject(current)) return false;
  const members = membersOf(current);
  return Array.from(membersOf(sent)).every(([key, value]) => holds(members.get(key), value));
}

/** The last of repeated keys counts, as in JSON.parse. */
function membersOf(text: string): Map<string, string> {
  return new Map(slicesAt(text).map(({ key, start, end }) => [key, text.slice(start, end)]));
}

function isNull(text: string): boolean {
  return text.trim() === "null";
}
