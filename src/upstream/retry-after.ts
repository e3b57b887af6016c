import type { IncomingHttpHeaders } from "node:http";

const DAY_MS = 86_400_000;

/**
 * The wait that an answer's `Retry-After` asks for (seconds or an HTTP date), at most a day; undefined when it is absent
 * or can't be read. A date is compared with the answer's own (RFC 9110, 6.6.1), as both come from one clock; a date in
 * the past gives 0.
 *
 * @param nowMs wall-clock time, for an answer that has no date.
 */
export function retryAfterMs(headers: IncomingHttpHeaders, nowMs: number): number | undefined {
  const text = textOf(headers["retry-after"]);
  if (!text) return undefined;
  const answeredMs = Date.parse(textOf(headers.date) ?? "");
  const fromMs = Number.isNaN(answeredMs) ? nowMs : answeredMs;
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - fromMs;
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), DAY_MS);
}

function textOf(value: string | string[] | undefined): string | undefined {
  return (Array.isArray(value) ? value[0] : value)?.trim();
}
