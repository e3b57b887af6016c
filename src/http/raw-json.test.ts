import fc from "fast-check";
import { expect, test } from "vitest";

import { RawJson, stringifyRaw } from "./raw-json.ts";

const exact = '{"b":12345678901234567890,"a":"\\ud800\\u0041"}';

test("raw text stands where its value stood, byte for byte, at any depth", () => {
  expect(stringifyRaw(new RawJson(exact))).toBe(exact);
  expect(stringifyRaw({ list: [{ data: new RawJson(exact), gone: undefined }], n: 1 })).toBe(
    `{"list":[{"data":${exact}}],"n":1}`,
  );
});

test("one answer's raw text says nothing about the next answer", () => {
  stringifyRaw(new RawJson("1"));
  expect(stringifyRaw({ a: [undefined, 1] })).toBe('{"a":[null,1]}');
});

test("without raw text it says what JSON.stringify says, and with it the rest is the same", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(stringifyRaw(value)).toBe(JSON.stringify(value));
      const mixed = JSON.parse(stringifyRaw({ value, raw: new RawJson("7") })) as object;
      expect(mixed).toEqual({ value: JSON.parse(JSON.stringify(value)) as unknown, raw: 7 });
    }),
  );
});
