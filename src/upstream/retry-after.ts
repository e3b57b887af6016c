const DAY_MS = 86_400_000;

/**
 * The wait that a `Retry-After` header asks for (seconds or an HTTP date), at most a day; undefined when it is absent
 * or can't be read.
 *
 * @param nowMs wall-clock time; a date in the past gives 0.
 */
export function retryAfterMs(value: string | string[] | undefined, nowMs: number): number | undefined {
  const text = (Array.isArray(value) ? value[0] : value)?.trim();
  if (!text) return undefined;
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), DAY_MS);
}
