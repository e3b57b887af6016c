import type { TidegateError } from "../platform/errors.ts";
import { readToken, signToken, tokenExpired, tokenSigner, type TokenClaims } from "./token.ts";

export type CursorClaims = TokenClaims;

/** Signs a position in the feed: what comes after it is what its reader has not seen. */
export function signCursor(secrets: readonly string[], claims: CursorClaims, position: number): string {
  return signToken(secrets, "cursor", claims, [position]);
}

/** Signs many positions for one reader. */
export function cursorSigner(secrets: readonly string[], claims: CursorClaims): (position: number) => string {
  const sign = tokenSigner(secrets, "cursor", claims);
  return (position) => sign([position]);
}

/**
 * The position of a cursor that was given out for the same tenant, client, scope set and epoch.
 * @throws {TidegateError} `cursor-expired` for every other cursor: the client starts over from a snapshot.
 */
export function readCursor(secrets: readonly string[], claims: CursorClaims, cursor: string): number {
  const [position = 0] = readToken(secrets, "cursor", claims, cursor);
  return position;
}

export function cursorExpired(detail: string): TidegateError {
  return tokenExpired("cursor", detail);
}
