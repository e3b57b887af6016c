import { createHash, createHmac, timingSafeEqual } from "node:crypto";

import { TidegateError } from "../platform/errors.ts";

/** A position in the feed, and for whom it was given out. */
export interface CursorClaims {
  tenantId: string;
  /** Undefined for readers without a client. */
  clientId: string | undefined;
  /** Sorted: the order of a token's claims doesn't matter. */
  scopes: readonly string[];
  epoch: string;
}

const charactersMax = 1_000;

/** Signs a position with the newest secret. What comes out is opaque to clients and fit for URLs and headers. */
export function signCursor(secrets: readonly string[], claims: CursorClaims, position: number): string {
  const body = Buffer.from(JSON.stringify([1, position, ...audienceOf(claims)])).toString("base64url");
  return `${body}.${signature(secrets[0] ?? "", body)}`;
}

/**
 * The position of a cursor that was given out for the same tenant, client, scope set and epoch.
 * @throws {TidegateError} `cursor-expired` for every other cursor: the client starts over from a snapshot.
 */
export function readCursor(secrets: readonly string[], claims: CursorClaims, cursor: string): number {
  const [body = "", given = "", ...rest] = cursor.slice(0, charactersMax + 1).split(".");
  const isSigned = secrets.some((secret) => isEqual(signature(secret, body), given));
  if (cursor.length > charactersMax || rest.length > 0 || !isSigned) {
    throw cursorExpired("It is damaged, or its secret is no longer accepted.");
  }
  const [, position, ...audience] = JSON.parse(Buffer.from(body, "base64url").toString()) as [
    number,
    number,
    ...string[],
  ];
  if (JSON.stringify(audience) !== JSON.stringify(audienceOf(claims))) {
    throw cursorExpired("It was given out for another tenant, client, scope set or epoch.");
  }
  return position;
}

export function cursorExpired(detail: string): TidegateError {
  return new TidegateError("cursor-expired", `The cursor can't be honoured. ${detail}`);
}

function audienceOf({ tenantId, clientId, scopes, epoch }: CursorClaims): string[] {
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
