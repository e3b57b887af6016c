import fc from "fast-check";
import { expect, test } from "vitest";

import { contentReader, fingerprints, sentContent } from "./fingerprint.ts";

const contentOf = (text: string): string => contentReader(text, 64)(text.indexOf("{")).canonical ?? "";
const asSent = (text: string): string => fingerprints(["secret"], sentContent(text))[0]!;
const one = (text: string, secret = "secret"): string => fingerprints([secret], contentOf(text))[0]!;

test("the order of members and keys, white space and spelling do not count", () => {
  const text = String.raw`{"entity":"activity","op":"create","data":{"a":"\u0041","n":1.50}}`;
  expect(one(text)).toBe(
    one(String.raw` { "data" : {"n":15e-1,"a":"A"}, "\u006fp":"create", "entity":"activity" } `),
  );
});

test("place, time and identity do not count, every part of the content does", () => {
  const text = '{"data":{"a":1}}';
  expect(one('{"seq":7,"id":"x","occurredAt":"now","data":{"a":1}}')).toBe(one(text));
  for (const part of ["entity", "op", "recordId", "baseVersion", "base", "dependsOn", "schema"]) {
    expect(one(`{"data":{"a":1},"${part}":"x"}`)).not.toBe(one(text));
    expect(one(`{"data":{"a":1},"${part}":null}`)).toBe(one(text));
  }
});

test("content never moves from one member to another unnoticed", () => {
  expect(one('{"data":{"x":1},"base":{"y":2}}')).not.toBe(one('{"base":{"x":1},"data":{"y":2}}'));
  expect(one(String.raw`{"op":"a\nschema:1"}`)).not.toBe(one('{"op":"a","schema":1}'));
});

test("different data has different hashes, whatever it is", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
      const [first, second] = [JSON.stringify({ data: { a } }), JSON.stringify({ data: { a: b } })];
      expect(one(first) === one(second)).toBe(sorted(a) === sorted(b));
    }),
  );
});

const sorted = (value: unknown): string => JSON.stringify(value, (_key, inner: unknown) => inOrder(inner));

function inOrder(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return Object.is(value, -0) ? 0 : value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

test("there is one for each secret, in their order, and none tells the other", () => {
  const [a, b] = fingerprints(["first", "second"], contentOf('{"data":{}}'));
  expect([a, b]).toEqual([one('{"data":{}}', "first"), one('{"data":{}}', "second")]);
  expect(a).not.toBe(b);
});

test("as sent, text of any depth has one, and its spelling counts", () => {
  const deep = `{"seq":1,"data":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
  expect(asSent(deep)).toBe(asSent(deep.replace('"seq":1', '"seq":2')));
  expect(asSent('{"data":{"a":1}}')).not.toBe(asSent('{"data":{"a": 1}}'));
});
