import { isName } from "../http/identity.ts";
import { isObject, pointerKeys, slicesAt, textAt } from "../platform/json-text.ts";

/** Who reads: the scopes and roles of a token. */
export interface Reader {
  scopes: readonly string[];
  roles: readonly string[];
}

const placeholder = /^([^{]*)\{(\/[^}]*)\}$/;

/**
 * The scopes that templates such as `user:{/mentor}` give for a record. A list in the record gives one scope for each
 * element. A field that is missing, or neither text nor number, gives none; neither does text that no token's claim
 * could be.
 */
export function scopesOf(templates: readonly string[], data: string): string[] {
  return [...new Set(templates.flatMap((template) => expand(template, data)))].toSorted();
}

function expand(template: string, data: string): string[] {
  const [, prefix = "", pointer] = placeholder.exec(template) ?? [];
  if (pointer === undefined) return [template];
  return namesAt(data, pointer).map((name) => prefix + name);
}

function namesAt(data: string, pointer: string): string[] {
  const found = textAt(data, pointer);
  if (found === undefined) return [];
  const tokens = found.startsWith("[")
    ? slicesAt(found).map(({ start, end }) => found.slice(start, end))
    : [found];
  return tokens.map(nameOf).filter(isName);
}

/** The name that a text or a number is; empty for everything else. */
function nameOf(token: string): string {
  if (token.startsWith('"')) return JSON.parse(token) as string;
  if (!/^-?\d/.test(token)) return "";
  // Of more digits than a double holds, two numbers would become one.
  const isExact = token.length <= 16 && Number.isSafeInteger(Number(token));
  return isExact ? String(Number(token)) : token;
}

/** Whether a record in `scopes` exists for the reader. */
export function canSee(reader: Reader, scopes: readonly string[]): boolean {
  return scopes.some((scope) => reader.scopes.includes(scope));
}

/**
 * Whether one of the rules gives the reader the right: a scope, a scope from the record's data, or `role:<name>`. A
 * field that stands twice in the data gives no right: who reads it next might take the other one.
 */
export function isAllowed(reader: Reader, rules: readonly string[] | undefined, data: string): boolean {
  if (rules === undefined) return true;
  return rules.some((rule) =>
    rule.startsWith("role:")
      ? reader.roles.includes(rule.slice("role:".length))
      : isUnambiguous(rule, data) && canSee(reader, scopesOf([rule], data)),
  );
}

function isUnambiguous(rule: string, data: string): boolean {
  let at = data;
  for (const key of pointerKeys(placeholder.exec(rule)?.[2] ?? "")) {
    const [found, another] = slicesAt(at).filter((slice) => slice.key === key);
    if (another) return false;
    if (!found) return true;
    at = at.slice(found.start, found.end);
  }
  return true;
}

/**
 * Whether a create's data or a merge patch sets the value at `pointer`: names it, something inside it, or replaces or
 * removes something around it. Of repeated keys each counts.
 */
export function setsField(patch: string, pointer: string): boolean {
  return setsAt(patch, pointerKeys(pointer));
}

function setsAt(patch: string, [key, ...rest]: string[]): boolean {
  if (key === undefined || !isObject(patch)) return true;
  return slicesAt(patch).some(
    (slice) => slice.key === key && setsAt(patch.slice(slice.start, slice.end), rest),
  );
}
