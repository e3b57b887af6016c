import { canonicalJson } from "../platform/canonical-json.ts";
import { isObject, slicesAt } from "../platform/json-text.ts";

/**
 * A merge of a JSON Merge Patch with what others have changed meanwhile, member by member, also in nested objects. Every
 * other value, an array too, is one value. To set null is to remove, and a null can't be told from a missing member.
 */

/** What is known of a value: its text, or null when there was none; undefined when that is not known. */
type Seen = string | null | undefined;

/**
 * What a patch changes of what its author saw: a member that has its old value in it was not touched. It depends on these
 * two alone, so that a repeat says the same, whatever has happened to the record since.
 *
 * @param base members as the author saw them, null for one that was not there. What it does not tell counts as touched.
 */
export function touchedIn(patch: string, base: string): string {
  const seen = membersOf(base);
  const touched = [...membersOf(patch)].flatMap(([key, value]): [string, string][] => {
    const old = seen.get(key);
    if (old === undefined) return [[key, value]];
    if (isObject(old) && isObject(value)) {
      const inner = touchedIn(value, old);
      return inner === "{}" ? [] : [[key, inner]];
    }
    return isSame(toSeen(old), toSeen(value)) ? [] : [[key, value]];
  });
  return `{${touched.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`;
}

/** What there is to compare a patch with. */
export interface Sides {
  /** As the author of the patch saw it. */
  base: Seen;
  /** As it is known to have been then; counts for what `base` does not tell. */
  before: Seen;
  /** As it is. */
  current: string | null;
}

/**
 * Whether both sides have changed the same value, and not to the same one. What was there before, where nobody can tell,
 * counts as changed.
 */
export function isClash(patch: string, { base, before, current }: Sides): boolean {
  const members = isObject(patch) ? membersOf(patch) : undefined;
  const seen = base === undefined ? before : base;
  // Without members it makes an object, and changes none.
  const isInside = members?.size ? hasMembers(current) : current !== null && isObject(current);
  if (members && isInside && hasMembers(seen)) {
    return [...members].some(([key, value]) =>
      isClash(value, {
        base: memberOf(base, key, undefined),
        before: memberOf(before, key, null),
        current: memberOf(current, key, null) ?? null,
      }),
    );
  }
  if (isSame(toSeen(patch), current)) return false;
  return seen === undefined || !isSame(seen, current);
}

/** Also what is not there, or not known: so are its members. */
function hasMembers(seen: Seen): boolean {
  return seen === undefined || seen === null || isObject(seen);
}

/** @param absent what it means when an object lacks the member. */
function memberOf(seen: Seen, key: string, absent: Seen): Seen {
  if (seen === undefined || seen === null) return seen;
  const member = isObject(seen) ? membersOf(seen).get(key) : undefined;
  return member === undefined ? absent : toSeen(member);
}

function toSeen(text: string): string | null {
  return text.trim() === "null" ? null : text;
}

function isSame(one: string | null, other: string | null): boolean {
  if (one === null || other === null) return one === other;
  return canonicalJson(one) === canonicalJson(other);
}

/** The last of repeated keys counts, as in JSON.parse. */
function membersOf(text: string): Map<string, string> {
  return new Map(slicesAt(text).map(({ key, start, end }) => [key, text.slice(start, end)]));
}
