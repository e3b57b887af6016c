/**
 * Work on JSON as text, for payloads that must come out as they came in: integers beyond 2^53, key order, escapes,
 * lone surrogates. `JSON.parse` would change all of these.
 *
 * Every function expects text that `JSON.parse` accepts. Recursion is as deep as the text is nested. Phones choose the
 * text, so the time it takes grows with its length, and at most with its depth besides.
 */

/** A member of an object, or an element of an array, as offsets into the text. */
export interface Slice {
  key: string;
  start: number;
  end: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** The members of the object, or the elements of the array, that begins at `start`; none for any other value. */
export function slicesAt(text: string, start = 0): Slice[] {
  const slices: Slice[] = [];
  walkMembers(
    text,
    (key, from) => {
      const end = endOfValue(text, from);
      slices.push({ key, start: from, end });
      return end;
    },
    start,
  );
  return slices;
}

/** The text of the value at a JSON Pointer (RFC 6901), or undefined. The last of repeated keys counts, as in JSON.parse. */
export function textAt(text: string, pointer: string): string | undefined {
  const span = spanAt(text, pointer);
  return span && text.slice(span.start, span.end);
}

/** Where the value at a JSON Pointer stands in the text. */
export function spanAt(text: string, pointer: string): { start: number; end: number } | undefined {
  let start = skipSpace(text, 0);
  let end = endOfValue(text, start);
  for (const key of pointerKeys(pointer)) {
    const found = slicesAt(text, start).findLast((slice) => slice.key === key);
    if (!found) return undefined;
    ({ start, end } = found);
  }
  return { start, end };
}

/** The value at a JSON Pointer as JavaScript sees it; undefined when there is none. */
export function valueAt(text: string, pointer: string): unknown {
  const found = textAt(text, pointer);
  return found === undefined ? undefined : JSON.parse(found);
}

/** The text with `value` (JSON text) at the pointer; objects on the way are created, everything else is untouched. */
export function withValueAt(text: string, pointer: string, value: string): string {
  const patch = pointerKeys(pointer).reduceRight((inner, key) => `{${JSON.stringify(key)}:${inner}}`, value);
  return mergePatch(text, patch);
}

/** JSON Merge Patch (RFC 7396) on text: what the patch does not name keeps its text and its place. */
export function mergePatch(target: string | undefined, patch: string): string {
  if (!isObject(patch)) return patch.trim();
  const members = new Map<string, string>();
  if (target !== undefined && isObject(target)) {
    for (const { key, start, end } of slicesAt(target)) members.set(key, target.slice(start, end));
  }
  for (const { key, start, end } of slicesAt(patch)) {
    const value = patch.slice(start, end);
    if (value === "null") members.delete(key);
    else members.set(key, mergePatch(members.get(key), value));
  }
  return `{${Array.from(members, ([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`;
}

/**
 * The text with some of its string values replaced.
 *
 * @param replace gets each string value, unescaped, and its path; what it returns stands in its place (as a string),
 * undefined leaves the text as it is.
 */
export function mapStrings(
  text: string,
  replace: (value: string, path: readonly string[]) => string | undefined,
): string {
  const parts: string[] = [];
  let copied = 0;
  visitStrings(text, skipSpace(text, 0), [], (start, end, path) => {
    const replacement = replace(unquote(text.slice(start, end)), path);
    if (replacement === undefined) return;
    parts.push(text.slice(copied, start), JSON.stringify(replacement));
    copied = end;
  });
  return copied === 0 ? text : parts.join("") + text.slice(copied);
}

/** The keys of a JSON Pointer. */
export function pointerKeys(pointer: string): string[] {
  if (pointer === "") return [];
  return pointer
    .slice(1)
    .split("/")
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
}

export function isObject(text: string): boolean {
  return text.charCodeAt(skipSpace(text, 0)) === OPEN_BRACE;
}

/**
 * Goes through the members of the object, or the elements of the array, that begins at `start`, and returns the offset
 * after it. Of any other value there are none.
 *
 * @param take gets each key (an element's index) and where its value begins, and returns where it ends.
 */
export function walkMembers(text: string, take: (key: string, start: number) => number, start = 0): number {
  const open = skipSpace(text, start);
  if (!isContainer(text, open)) return endOfValue(text, open);
  const hasKeys = text.charCodeAt(open) === OPEN_BRACE;
  let at = skipSpace(text, open + 1);
  for (let index = 0; !isClosing(text, at); index++) {
    let key = String(index);
    if (hasKeys) {
      const keyEnd = endOfString(text, at);
      key = unquote(text.slice(at, keyEnd));
      at = skipSpace(text, skipSpace(text, keyEnd) + 1);
    }
    at = skipSpace(text, take(key, at));
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
  return at + 1;
}

/** Returns the offset after the value. */
function visitStrings(
  text: string,
  start: number,
  path: readonly string[],
  visit: (start: number, end: number, path: readonly string[]) => void,
): number {
  if (isContainer(text, start)) {
    return walkMembers(text, (key, from) => visitStrings(text, from, [...path, key], visit), start);
  }
  const end = endOfValue(text, start);
  if (text.charCodeAt(start) === QUOTE) visit(start, end, path);
  return end;
}

function unquote(token: string): string {
  return token.includes("\\") ? (JSON.parse(token) as string) : token.slice(1, -1);
}

function isContainer(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === OPEN_BRACE || code === OPEN_BRACKET;
}

function isClosing(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === CLOSE_BRACE || code === CLOSE_BRACKET;
}

function skipSpace(text: string, start: number): number {
  let at = start;
  while (text.charCodeAt(at) <= 0x20) at++;
  return at;
}

/** The offset after the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  let at = text.indexOf('"', start + 1);
  while (isEscaped(text, at)) at = text.indexOf('"', at + 1);
  return at + 1;
}

function isEscaped(text: string, quote: number): boolean {
  let slashes = 0;
  while (text.charCodeAt(quote - 1 - slashes) === BACKSLASH) slashes++;
  return slashes % 2 === 1;
}

/** The offset after the value that begins at `start`. */
export function endOfValue(text: string, start: number): number {
  const open = text.charCodeAt(start);
  if (open === QUOTE) return endOfString(text, start);
  if (open !== OPEN_BRACE && open !== OPEN_BRACKET) return endOfScalar(text, start);
  let depth = 0;
  for (let at = start; ; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at) - 1;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) depth++;
    else if ((code === CLOSE_BRACE || code === CLOSE_BRACKET) && --depth === 0) return at + 1;
  }
}

function endOfScalar(text: string, start: number): number {
  let at = start;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code <= 0x20 || code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET) break;
    at++;
  }
  return at;
}
