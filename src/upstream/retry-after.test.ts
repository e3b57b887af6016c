import { expect, test } from "vitest";

import { retryAfterMs } from "./retry-after.ts";

const now = Date.parse("2026-11-22T10:00:00Z");

test.for([
  ["120", 120_000],
  [" 0 ", 0],
  ["Sun, 22 Nov 2026 10:00:30 GMT", 30_000],
  ["Sun, 22 Nov 2026 09:00:00 GMT", 0],
  ["99999999999999999999", 86_400_000],
  ["Wed, 22 Nov 2096 10:00:30 GMT", 86_400_000],
  ["soon", undefined],
  ["", undefined],
] as const)("Retry-After %j asks for %j ms", ([value, waitMs]) => {
  expect(retryAfterMs({ "retry-after": value }, now)).toBe(waitMs);
});

test("a date is compared with the answer's own, however far the clock here is off", () => {
  const headers = { "retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", date: "Sun, 22 Nov 2026 10:00:00 GMT" };
  expect(retryAfterMs(headers, now - 18_000_000)).toBe(30_000);
  expect(retryAfterMs({ ...headers, date: "at ten" }, now)).toBe(30_000);
});

test("an answer without it asks for nothing", () => {
  expect(retryAfterMs({ date: "Sun, 22 Nov 2026 10:00:00 GMT" }, now)).toBeUndefined();
});
