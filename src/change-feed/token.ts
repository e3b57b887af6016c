import { createHash, createHmac, timingSafeEqual } from "node:crypto";

import { TidegateError } from "../platform/errors.ts";

/** For whom a place in the feed was given out. */
export interface TokenClaims {
  tenantId: string;
  /** Undefined for readers without a client. */
  clientId: string | undefined;
  /** Sorted: the order of a token's claims doesn't matter. */
  scopes: readonly string[];
  epoch: string;
}

/** A cursor is no page of a snapshot, nor the other way round. */
export type TokenKind = "cursor" | "page";

const kindNumbers: Record<TokenKind, number> = { cursor: 1, page: 2 };
const charactersMax = 1_000;

/** Signs a place with the newest secret. What comes out is opaque to clients and fit for URLs and headers. */
export function signToken(
  secrets: readonly string[],
  kind: TokenKind,
  claims: TokenClaims,
  place: readonly number[],
): string {
  return tokenSigner(secrets, kind, claims)(place);
}

/** Signs many places for the same reader. */
export function tokenSigner(
  secrets: readonly string[],
  kind: TokenKind,
  claims: TokenClaims,
): (place: readonly number[]) => string {
  const audience = audienceOf(claims);
  return (place) => {
    const body = Buffer.from(JSON.stringify([kindNumbers[kind], ...place, ...audience]));
    const text = body.toString("base64url");
    return `${text}.${signature(secrets[0] ?? "", text)}`;
  };
}

/**
 * The place in a token of the same kind, tenant, client, scope set and epoch.
 * @throws {TidegateError} `cursor-expired` for every other token: the client starts over from a snapshot.
 */
export function readToken(
  secrets: readonly string[],
  kind: TokenKind,
  claims: TokenClaims,
  token: string,
): number[] {
  const [body = "", given = "", ...rest] = token.slice(0, charactersMax + 1).split(".");
  const isSigned = secrets.some((secret) => isEqual(signature(secret, body), given));
  if (token.length > charactersMax || rest.length > 0 || !isSigned) {
    throw tokenExpired(kind, "It is damaged, or its secret is no longer accepted.");
  }
  const [kindNumber, ...members] = JSON.parse(Buffer.from(body, "base64url").toString()) as unknown[];
  if (kindNumber !== kindNumbers[kind]) throw tokenExpired(kind, "It is something else.");
  const audience = audienceOf(claims);
  const place = members.slice(0, -audience.length) as number[];
  if (JSON.stringify(members) !== JSON.stringify([...place, ...audience])) {
    throw tokenExpired(kind, "It was given out for another tenant, client, scope set or epoch.");
  }
  return place;
}

export function tokenExpired(kind: TokenKind, detail: string): TidegateError {
  return new TidegateError("cursor-expired", `The ${kind} can't be honoured. ${detail}`);
}

function audienceOf({ tenantId, clientId, scopes, epoch }: TokenClaims): string[] {
  const scopeHash = createHash("sha256").update(JSON.stringify(scopes)).digest("base64url").slice(0, 22);
  return [epoch, tenantId, clientId ?? "", scopeHash];
}

function signature(secret: string, body: string): string {
  return createHmac("sha256", secret).update(body).digest("base64url").slice(0, 22);
}

function isEqual(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
