/**
 * Exponential backoff with full jitter: between 0 and min(cap, base · 2^failures), but never less than `retryAfterMs`.
 *
 * @param failures in a row so far, this one included.
 * @param random in [0, 1).
 */
export function backoffMs(
  failures: number,
  { baseMs, capMs }: { baseMs: number; capMs: number },
  { retryAfterMs = 0, random = Math.random() }: { retryAfterMs?: number | undefined; random?: number } = {},
): number {
  const ceilingMs = Math.min(capMs, baseMs * 2 ** Math.min(failures - 1, 30));
  return Math.max(Math.round(ceilingMs * random), retryAfterMs);
}
