import type { TidegateError } from "../platform/errors.ts";
import { readToken, tokenExpired, tokenSigner, type TokenClaims } from "./token.ts";

export type CursorClaims = TokenClaims;

/** Where a reader is in the feed: what comes after it is what the reader has not seen. */
export interface FeedPlace {
  position: number;
  /**
   * Where the feed's head was when a reader began at the feed's beginning, for as long as it has not come so far; else
   * `position`. Of what was pruned up to there it needs nothing: records that had gone by then it was never shown.
   */
  begunAt: number;
}

/** @param begunAt see `FeedPlace`. */
export function signCursor(
  secrets: readonly string[],
  claims: CursorClaims,
  position: number,
  begunAt = position,
): string {
  return cursorSigner(secrets, claims)(position, begunAt);
}

/** Signs many positions for one reader. */
export function cursorSigner(
  secrets: readonly string[],
  claims: CursorClaims,
): (position: number, begunAt?: number) => string {
  const sign = tokenSigner(secrets, "cursor", claims);
  return (position, begunAt = position) => sign(begunAt > position ? [position, begunAt] : [position]);
}

/**
 * The place of a cursor that was given out for the same tenant, client, scope set and epoch.
 * @throws {TidegateError} `cursor-expired` for every other cursor: the client starts over from a snapshot.
 */
export function readCursor(secrets: readonly string[], claims: CursorClaims, cursor: string): FeedPlace {
  const [position = 0, begunAt = position] = readToken(secrets, "cursor", claims, cursor);
  return { position, begunAt };
}

export function cursorExpired(detail: string): TidegateError {
  return tokenExpired("cursor", detail);
}
