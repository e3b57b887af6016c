import fc from "fast-check";
import { expect, test } from "vitest";

import { mapStrings, mergePatch, slicesAt, textAt, withValueAt } from "./json-text.ts";

const spaced = fc.constantFrom(undefined, 1, 2);

test("every member keeps its text, whatever the strings contain", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), spaced, (value, indent) => {
      const text = JSON.stringify(value, undefined, indent);
      const seen = slicesAt(text).map(({ key, start, end }) => [key, JSON.parse(text.slice(start, end))]);
      expect(seen).toEqual(JSON.parse(text) === null ? [] : Object.entries(JSON.parse(text) as object));
    }),
  );
});

test("a value is found by its pointer, through escapes, arrays and integer-like keys", () => {
  const text = String.raw` { "2": 1, "1": {"a/b": [10, {"~": 12345678901234567890}]}, "q\"": "x" } `;
  expect(textAt(text, "/1/a~1b/1/~0")).toBe("12345678901234567890");
  expect(textAt(text, '/q"')).toBe('"x"');
  expect(textAt(text, "/1/missing")).toBeUndefined();
  expect(textAt("7", "")).toBe("7");
});

test("a merge patch gives what RFC 7396 says and keeps numbers and order", () => {
  expect(
    mergePatch('{"b":1.50,"a":{"x":1,"y":2}}', '{"a":{"x":null,"z":12345678901234567890},"c":"\\u0000"}'),
  ).toBe('{"b":1.50,"a":{"y":2,"z":12345678901234567890},"c":"\\u0000"}');
  expect(mergePatch('{"a":[1]}', '{"a":{"b":null}}')).toBe('{"a":{}}');
  expect(mergePatch('["a"]', '{"a":1}')).toBe('{"a":1}');
  expect(withValueAt('{"a":1}', "/ref/id", '"x"')).toBe('{"a":1,"ref":{"id":"x"}}');
});

test("a merge patch agrees with a reference implementation on parsed values", () => {
  const reference = (target: unknown, patch: unknown): unknown => {
    if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
    const isRecord = typeof target === "object" && target !== null && !Array.isArray(target);
    const result = new Map<string, unknown>(isRecord ? Object.entries(target) : []);
    for (const [key, value] of Object.entries(patch)) {
      if (value === null) result.delete(key);
      else result.set(key, reference(result.get(key), value));
    }
    return Object.fromEntries(result);
  };
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (target, patch) => {
      const [a, b] = [JSON.stringify(target), JSON.stringify(patch)];
      expect(JSON.parse(mergePatch(a, b))).toEqual(reference(JSON.parse(a), JSON.parse(b)));
    }),
  );
});

test("replacing strings leaves every other byte as it was", () => {
  const text = String.raw`{ "id":"urn", "n": 1e400, "list":["urn","\ud800","u\u0072n"], "urn":"x" }`;
  const paths: string[] = [];
  const replaced = mapStrings(text, (value, path) => {
    if (value !== "urn") return undefined;
    paths.push(path.join("/"));
    return "4711";
  });
  expect(replaced).toBe(String.raw`{ "id":"4711", "n": 1e400, "list":["4711","\ud800","4711"], "urn":"x" }`);
  expect(paths).toEqual(["id", "list/0", "list/2"]);
});

test("strings are replaced in time that grows with the length", () => {
  const nested = `${"[".repeat(64)}${"1.0,".repeat(50_000)}"urn"${"]".repeat(64)}`;
  expect(mapStrings(nested, () => "7")).toBe(nested.replace("urn", "7"));
});
