import { createHmac } from "node:crypto";

import { textAt } from "../../platform/json-text.ts";

/** Whose records are listed. */
export interface HeldEntity {
  tenantId: string;
  upstreamId: string;
  entity: string;
}

/**
 * The value by which a record is paired, as text: of a number its digits as they were sent. Undefined where there is
 * nothing to pair by: no value, an empty one, or one of another kind.
 */
export function matchValue(body: string, pointer: string): string | undefined {
  const token = textAt(body, pointer);
  if (token === undefined) return undefined;
  if (!token.startsWith('"')) return /^-?\d/.test(token) ? token : undefined;
  const value = JSON.parse(token) as string;
  return value !== "" && value.isWellFormed() ? value : undefined;
}

/** 128 bits: no two values of a list meet by chance, and nobody can compute on from it. */
const hashBytes = 16;

/** What is kept of a value, in hex: without the secret, guesses can't be tried. */
export function valueHash(
  secret: string,
  { tenantId, upstreamId, entity }: HeldEntity,
  value: string,
): string {
  const keyed = createHmac("sha256", secret).update(JSON.stringify([tenantId, upstreamId, entity, value]));
  return keyed.digest("hex").slice(0, 2 * hashBytes);
}

/** Tells secrets apart and nothing of them. */
export function secretId(secret: string): string {
  return createHmac("sha256", secret).update("what a shadow held").digest("hex").slice(0, 16);
}
