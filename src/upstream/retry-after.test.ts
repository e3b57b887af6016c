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
  expect(retryAfterMs(value, now)).toBe(waitMs);
});

test("of several the first counts, and none asks for nothing", () => {
  expect(retryAfterMs(["5", "6"], now)).toBe(5000);
  expect(retryAfterMs(undefined, now)).toBeUndefined();
});
