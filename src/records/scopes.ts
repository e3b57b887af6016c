import { isObject, pointerKeys, textAt } from "../platform/json-text.ts";

/** Who reads: the scopes and roles of a token. */
export interface Reader {
  scopes: readonly string[];
  roles: readonly string[];
}

const placeholder = /\{(\/[^}]*)\}/;

/**
 * The scopes that templates such as `user:{/mentor}` give for a record. A list in the record gives one scope for each
 * element; a field that is missing, or neither text nor number, gives none.
 */
export function scopesOf(templates: readonly string[], data: string): string[] {
  return [...new Set(templates.flatMap((template) => expand(template, data)))].toSorted();
}

function expand(template: string, data: string): string[] {
  const pointer = placeholder.exec(template)?.[1];
  if (pointer === undefined) return [template];
  return namesAt(data, pointer).flatMap((name) =>
    expand(
      template.replace(placeholder, () => name),
      data,
    ),
  );
}

function namesAt(data: string, pointer: string): string[] {
  const found = textAt(data, pointer);
  if (found === undefined) return [];
  const value: unknown = JSON.parse(found);
  const names: unknown[] = Array.isArray(value) ? value : [value];
  return names.flatMap((name) => {
    if (typeof name === "number") return [Number.isSafeInteger(name) ? String(name) : found];
    return typeof name === "string" && !name.includes("\0") && !name.includes("{/") ? [name] : [];
  });
}

/** Whether a record in `scopes` exists for the reader. */
export function canSee(reader: Reader, scopes: readonly string[]): boolean {
  return scopes.some((scope) => reader.scopes.includes(scope));
}

/** Whether one of the rules gives the reader the right: a scope, a scope from the record's data, or `role:<name>`. */
export function isAllowed(reader: Reader, rules: readonly string[] | undefined, data: string): boolean {
  if (rules === undefined) return true;
  return rules.some((rule) =>
    rule.startsWith("role:")
      ? reader.roles.includes(rule.slice("role:".length))
      : scopesOf([rule], data).some((scope) => reader.scopes.includes(scope)),
  );
}

/**
 * Whether a create's data or a merge patch sets the value at `pointer`: names it, something inside it, or replaces or
 * removes something around it.
 */
export function setsField(patch: string, pointer: string): boolean {
  let at = patch;
  for (const key of pointerKeys(pointer)) {
    if (!isObject(at)) return true;
    const member = textAt(at, `/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`);
    if (member === undefined) return false;
    at = member;
  }
  return true;
}
