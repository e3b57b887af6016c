import { Type } from "typebox";

import { patterns } from "./patterns.ts";

/** An object without other keys. */
export const closed = { additionalProperties: false };

/** Text that is not empty, of the given form if there is one. */
export function text(description: string, form: { pattern?: string; default?: string } = {}): Type.TString {
  const { pattern, default: standard } = form;
  return Type.String({
    description,
    minLength: 1,
    ...(pattern !== undefined && { pattern }),
    ...(standard !== undefined && { default: standard }),
  });
}

export function integer(
  description: string,
  range: { minimum: number; maximum: number; default?: number },
): Type.TInteger {
  return Type.Integer({ description, ...range });
}

export function jsonPointer(description: string): Type.TString {
  return text(description, patterns.jsonPointer);
}

/** A map whose keys have a form; values under badly named keys are checked all the same. */
export function named<Value extends Type.TSchema>(
  form: { pattern: string },
  value: Value,
  options: Type.TObjectOptions,
): Type.TUnsafe<Record<string, Type.Static<Value>>> {
  return Type.Unsafe({
    type: "object",
    propertyNames: { pattern: form.pattern },
    additionalProperties: value,
    ...options,
  });
}

/** Optional in the file, since not every kind of upstream needs it, and always there once it is read. */
export type Always<T, K extends keyof T> = Omit<T, K> & { [Key in K]-?: Exclude<T[Key], undefined> };
