import { expect, test } from "vitest";

import { rememberVerifiedTokens } from "./verified-tokens.ts";

const later = () => Date.now() + 60_000;

test("a token is not remembered beyond its end, nor beyond the age at which keys may have changed", () => {
  const tokens = rememberVerifiedTokens<string>();
  tokens.set("expired", "a", Date.now() - 1);
  tokens.set("valid", "b", later());
  expect([tokens.get("expired"), tokens.get("valid"), tokens.get("unknown")]).toEqual([
    undefined,
    "b",
    undefined,
  ]);
  const forgetful = rememberVerifiedTokens<string>({ maxAgeMs: 0 });
  forgetful.set("valid", "b", later());
  expect(forgetful.get("valid")).toBeUndefined();
});

test("memory is bounded, and what is in use stays", () => {
  const tokens = rememberVerifiedTokens<number>({ entriesMax: 10 });
  tokens.set("in use", -1, later());
  for (let index = 0; index < 1000; index += 1) {
    tokens.set(`token ${index}`, index, later());
    expect(tokens.get("in use")).toBe(-1);
  }
  const remembered = Array.from({ length: 1000 }, (_, index) => tokens.get(`token ${index}`));
  expect(remembered.filter((value) => value !== undefined).length).toBeLessThanOrEqual(10);
  expect(remembered.at(-1)).toBe(999);
});
