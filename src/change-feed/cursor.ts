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
  /**
   * Outcomes up to there it may not have been told: they came before its snapshot, or their rows were pruned before it came
   * to them. 0: it was told all.
   */
  untoldTo: number;
}

/** @param rest see `FeedPlace`. */
export function signCursor(
  secrets: readonly string[],
  claims: CursorClaims,
  position: number,
  rest: Partial<Omit<FeedPlace, "position">> = {},
): string {
  return cursorSigner(secrets, claims)({ begunAt: position, untoldTo: 0, ...rest, position });
}

/** Signs many positions for one reader. */
export function cursorSigner(secrets: readonly string[], claims: CursorClaims): (place: FeedPlace) => string {
  const sign = tokenSigner(secrets, "cursor", claims);
  return ({ position, begunAt, untoldTo }) => {
    if (untoldTo > 0) return sign([position, Math.max(position, begunAt), untoldTo]);
    return sign(begunAt > position ? [position, begunAt] : [position]);
  };
}

/**
 * The place of a cursor that was given out for the same tenant, client, scope set and epoch.
 * @throws {TidegateError} `cursor-expired` for every other cursor: the client starts over from a snapshot.
 */
export function readCursor(secrets: readonly string[], claims: CursorClaims, cursor: string): FeedPlace {
  const [position = 0, begunAt = position, untoldTo = 0] = readToken(secrets, "cursor", claims, cursor);
  return { position, begunAt, untoldTo };
}

export function cursorExpired(detail: string): TidegateError {
  return tokenExpired("cursor", detail);
}
