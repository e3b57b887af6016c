import { TidegateError } from "../platform/errors.ts";

/** The verified claims of a token. */
export type Claims = Record<string, unknown>;

/** Who calls, as a tenant's token says it. Frozen: one object serves all requests with the same token. */
export interface Identity {
  tenantId: string;
  userId: string;
  /** What the user sees, e.g. `org`, `user:123`; sorted, each once. */
  scopes: string[];
  /** Sorted, each once. */
  roles: string[];
  /** When the token is no longer accepted: its `exp` and the allowed clock skew. */
  expiresAtMs: number;
}

export interface IdentityRules {
  tenantId: string;
  /** Scopes, or scopes from a claim: `org`, `user:{sub}`. */
  scopes: readonly string[];
  /** The claim that holds the roles. */
  roles: string;
}

export const clockSkewMs = 30_000;

const charactersMax = 255;
/** More would make every read of the feed slow; dropping some would silently hide records. */
const scopesMax = 1000;

/**
 * Turns verified claims into an identity.
 * @throws {TidegateError} `unauthorized` without a usable `sub` or `exp`; `forbidden` with too many scopes.
 */
export function toIdentity(claims: Claims, { tenantId, scopes, roles }: IdentityRules): Identity {
  const userId = ownClaim(claims, "sub");
  if (typeof userId !== "string" || !isName(userId)) {
    throw new TidegateError("unauthorized", "The token's `sub` is not a usable name.");
  }
  return Object.freeze({
    tenantId,
    userId,
    scopes: Object.freeze(scopesOf(claims, scopes)) as string[],
    roles: Object.freeze(sortedOnce(namesIn(claims, roles))) as string[],
    expiresAtMs: expiryOf(claims),
  });
}

/** When a token with these claims is no longer accepted. */
export function expiryOf(claims: Claims): number {
  const expiresAtMs = Number(ownClaim(claims, "exp")) * 1000 + clockSkewMs;
  if (!Number.isFinite(expiresAtMs))
    throw new TidegateError("unauthorized", "The token's `exp` is not a time.");
  return expiresAtMs;
}

/** A claim of the token itself, never one that every object inherits. */
export function ownClaim(claims: Claims, name: string): unknown {
  return Object.hasOwn(claims, name) ? claims[name] : undefined;
}

const scopeFromClaim = /^([^{}]*)\{([^{}]+)\}$/;

function scopesOf(claims: Claims, templates: readonly string[]): string[] {
  const scopes = sortedOnce(
    templates.flatMap((template) => {
      const [, prefix, claim] = scopeFromClaim.exec(template) ?? [];
      if (prefix === undefined || claim === undefined) return [template];
      return namesIn(claims, claim).map((name) => prefix + name);
    }),
  );
  if (scopes.length > scopesMax) throw new TidegateError("forbidden", `More than ${scopesMax} scopes.`);
  return scopes;
}

/** The usable names in a claim: text and whole numbers, alone or in a list. Objects and nested lists are ignored. */
function namesIn(claims: Claims, name: string): string[] {
  const value = ownClaim(claims, name);
  const values: unknown[] = Array.isArray(value) ? value : [value];
  return values
    .filter((item) => typeof item === "string" || Number.isSafeInteger(item))
    .map(String)
    .filter(isName);
}

/**
 * Postgres has no NUL in text, and an unpaired surrogate would become U+FFFD on the way there: two users would turn
 * into one.
 */
export function isName(text: string): boolean {
  return text.length > 0 && text.length <= charactersMax && !text.includes("\0") && text.isWellFormed();
}

function sortedOnce(names: string[]): string[] {
  return [...new Set(names)].toSorted();
}
