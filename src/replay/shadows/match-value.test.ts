import { expect, test } from "vitest";

import { matchValue, secretId, valueHash } from "./match-value.ts";

test.each([
  ['{"no":"a b"}', "a b"],
  ['{"no":"\\u0061"}', "a"],
  ['{"no":" a"}', " a"],
  ['{"no":9007199254740993}', "9007199254740993"],
  ['{"no":-1.50}', "-1.50"],
  ['{"no":"9007199254740993"}', "9007199254740993"],
  ['{"no":"\\u0000"}', "\0"],
  ['{"no":""}', undefined],
  ['{"no":null}', undefined],
  ['{"no":true}', undefined],
  ['{"no":["a"]}', undefined],
  ['{"no":"\\ud800"}', undefined],
  ['{"other":"a"}', undefined],
  ["{}", undefined],
])("of %s the value is %j", (body, value) => {
  expect(matchValue(body, "/no")).toBe(value);
});

test("what is kept of a value tells neither it nor that two entities, shadows or tenants share it", () => {
  const of = { tenantId: "a", upstreamId: "b", entity: "c" };
  const places = [of, { ...of, tenantId: "d" }, { ...of, upstreamId: "d" }, { ...of, entity: "d" }];
  const hashes = places.map((place) => valueHash("secret", place, "value"));
  expect(new Set([...hashes, valueHash("other", of, "value"), valueHash("secret", of, "other")]).size).toBe(
    6,
  );
  expect(valueHash("secret", { ...of }, "value")).toBe(hashes[0]);
  for (const hash of hashes) expect(hash).toMatch(/^[0-9a-f]{32}$/);
  expect(secretId("secret")).not.toBe(secretId("other"));
});
