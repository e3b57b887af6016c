import { expect, test } from "vitest";

import { preferredWaitSeconds } from "./prefer.ts";

const understood: [header: string | string[], seconds: number][] = [
  ["wait=10", 10],
  ["wait=0", 0],
  ["wait=26", 25],
  ["wait=999999999", 25],
  [' Wait = "7" ', 7],
  ["respond-async, wait=5", 5],
  ["wait=5; unit=s", 5],
  [["respond-async", "wait=5"], 5],
  ["wait=5, wait=9", 5],
];
test.each(understood)("%j asks for %i seconds, at most 25", (header, seconds) => {
  expect(preferredWaitSeconds(header, 25)).toBe(seconds);
});

const ignored = [
  undefined,
  "",
  "wait",
  "wait=",
  "wait=-1",
  "wait=1.5",
  "wait=1e1",
  "wait=soon",
  "wait=9999999999",
  "await=5",
  "x-wait=5",
  'note="wait=5"',
];
test.each(ignored)("%j is ignored", (header) => {
  expect(preferredWaitSeconds(header, 25)).toBeUndefined();
});
