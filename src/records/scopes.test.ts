import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { canSee, isAllowed, scopesOf, setsField } from "./scopes.ts";

/** Any UTF-16, half characters too. */
const anyText = fc.array(fc.nat(0xffff)).map((codes) => String.fromCharCode(...codes));
const scopesOfName = (name: string): string[] => scopesOf(["user:{/m}"], JSON.stringify({ m: name }));
const allowed = (rules: string[] | undefined, data = "{}"): boolean => isAllowed(reader, rules, data);
const reader = { scopes: ["org", "user:kari"], roles: ["mentor"] };

describe("the scopes of a record", () => {
  const cases: [data: string, pointer: string, scopes: string[]][] = [
    ['{"m":"kari"}', "/m", ["user:kari"]],
    ['{"m":" kari "}', "/m", ["user: kari "]],
    [String.raw`{"m":"k\u00e5ri"}`, "/m", ["user:kåri"]],
    ['{"m":["b","a","b",7]}', "/m", ["user:7", "user:a", "user:b"]],
    ['{"m":{"id":["a"]}}', "/m/id", ["user:a"]],
    ['{"m":[{"id":"a"},{"id":"b"}]}', "/m/1/id", ["user:b"]],
    ['{"m":"{/other}","other":"x"}', "/m", ["user:{/other}"]],
    ['{"m":"ola","m":"kari"}', "/m", ["user:kari"]],
    ['{"m":7}', "/m", ["user:7"]],
    ['{"m":7.0}', "/m", ["user:7"]],
    ['{"m":-0}', "/m", ["user:0"]],
    ['{"m":9007199254740993}', "/m", ["user:9007199254740993"]],
    ['{"m":[9007199254740993,9007199254740992]}', "/m", ["user:9007199254740992", "user:9007199254740993"]],
    ['{"m":""}', "/m", []],
    [String.raw`{"m":"\u0000"}`, "/m", []],
    [String.raw`{"m":"\ud800"}`, "/m", []],
    [`{"m":"${"x".repeat(256)}"}`, "/m", []],
    [`{"m":${"7".repeat(256)}}`, "/m", []],
    ['{"m":[true,null,{"a":1},["b"]]}', "/m", []],
    ['{"m":true}', "/m", []],
    ["{}", "/m", []],
    ["{}", "/toString", []],
    ['{"m":"a"}', "/m/0", []],
  ];
  test.each(cases)("%s at %s", (data, pointer, scopes) => {
    expect(scopesOf([`user:{${pointer}}`], data)).toEqual(scopes);
  });

  test("from several templates are sorted, each once", () => {
    expect(scopesOf(["user:{/a}", "org", "user:{/b}", "org"], '{"b":"x","a":"x"}')).toEqual([
      "org",
      "user:x",
    ]);
  });

  test("are never a token's by accident: two names give two scopes", () => {
    fc.assert(
      fc.property(anyText, anyText, (a, b) => {
        if (a !== b) expect(scopesOfName(a).some((scope) => scopesOfName(b).includes(scope))).toBe(false);
      }),
    );
  });
});

test("a record is seen in one of the reader's scopes and in no other", () => {
  expect(canSee(reader, ["group:x", "user:kari"])).toBe(true);
  expect(canSee(reader, ["user:kar", "user:kari2", "orga", "role:mentor", "mentor"])).toBe(false);
  expect(canSee(reader, [])).toBe(false);
});

describe("a right", () => {
  test("comes from a scope, a role, or a scope in the record; no rules are no restriction, an empty list allows nobody", () => {
    expect([allowed(undefined), allowed([]), allowed(["org"]), allowed(["role:mentor"])]).toEqual([
      true,
      false,
      true,
      true,
    ]);
    expect([allowed(["group:x"]), allowed(["role:coordinator"]), allowed(["mentor"])]).toEqual([
      false,
      false,
      false,
    ]);
    expect([allowed(["user:{/m}"], '{"m":"kari"}'), allowed(["user:{/m}"], '{"m":"ola"}')]).toEqual([
      true,
      false,
    ]);
  });

  test("does not come from a field that stands there twice", () => {
    for (const data of [
      '{"m":"ola","m":"kari"}',
      '{"m":"kari","m":"kari"}',
      String.raw`{"\u006d":"ola","m":"kari"}`,
    ]) {
      expect(isAllowed(reader, ["user:{/m}"], data)).toBe(false);
      expect(isAllowed(reader, ["user:{/m}", "role:mentor"], data)).toBe(true);
    }
    expect(isAllowed(reader, ["user:{/a/m}"], '{"a":{"m":"ola"},"a":{"m":"kari"}}')).toBe(false);
    expect(isAllowed(reader, ["user:{/m}"], '{"x":1,"x":2,"m":"kari"}')).toBe(true);
  });
});

describe("a patch sets a field", () => {
  const sets = [
    '{"a":{"b":1}}',
    '{"a":{"b":null}}',
    '{"a":{"b":{"c":1}}}',
    '{"a":null}',
    '{"a":[]}',
    '{"a":1}',
    '{"a":{"b":1},"a":{}}',
    '{"a":{},"a":{"b":1}}',
  ];
  test.each(sets)("when it names it, something inside or something around it: %s", (patch) => {
    expect(setsField(patch, "/a/b")).toBe(true);
  });

  test.each(["{}", '{"b":1}', '{"a":{}}', '{"a":{"c":{"b":1}}}', '{"a/b":1}', '{"A":{"B":1}}'])(
    "and not otherwise: %s",
    (patch) => {
      expect(setsField(patch, "/a/b")).toBe(false);
    },
  );

  test("also through names that need escapes", () => {
    expect(setsField(String.raw`{"a/b":{"~":1}}`, "/a~1b/~0")).toBe(true);
    expect(setsField(String.raw`{"\u0061":1}`, "/a")).toBe(true);
    expect(setsField('{"__proto__":1}', "/__proto__")).toBe(true);
    expect(setsField("{}", "/__proto__")).toBe(false);
  });
});
