import { canonicalJson } from "./canonical-json.ts";
import { isObject, slicesAt } from "./json-text.ts";

/**
 * The JSON Merge Patch (RFC 7396) that makes one record of another; `{}` when they are equal. A null in a record can't be
 * told from a missing member, as in every merge patch.
 */
export function patchBetween(before: string, after: string): string {
  const [was, is] = [membersOf(before), membersOf(after)];
  const changed = Array.from(is).flatMap(([key, value]): [string, string][] => {
    const old = was.get(key);
    if (old === undefined) return [[key, value]];
    if (isObject(old) && isObject(value)) {
      const inner = patchBetween(old, value);
      return inner === "{}" ? [] : [[key, inner]];
    }
    return canonicalJson(old) === canonicalJson(value) ? [] : [[key, value]];
  });
  const removed = [...was.keys()].filter((key) => !is.has(key)).map((key): [string, string] => [key, "null"]);
  return toObject([...changed, ...removed]);
}

/** One merge patch that does what two do one after the other. */
export function composePatches(first: string, second: string): string {
  if (!isObject(first) || !isObject(second)) return second;
  const members = membersOf(first);
  for (const [key, value] of membersOf(second)) {
    const earlier = members.get(key);
    members.set(key, earlier === undefined ? value : composePatches(earlier, value));
  }
  return toObject([...members]);
}

/** The members of a patch that a record has, also in objects in it: what is left of a patch that makes the record of nothing. */
export function onlyWhatIsIn(record: string, patch: string): string {
  if (!isObject(record) || !isObject(patch)) return patch;
  const held = membersOf(record);
  const members = [...membersOf(patch)].flatMap(([key, value]): [string, string][] => {
    const found = held.get(key);
    return found === undefined ? [] : [[key, onlyWhatIsIn(found, value)]];
  });
  return toObject(members);
}

/** The last of repeated keys counts, as in JSON.parse. */
function membersOf(text: string): Map<string, string> {
  return new Map(slicesAt(text).map(({ key, start, end }) => [key, text.slice(start, end)]));
}

function toObject(members: [string, string][]): string {
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`;
}
