import fc from "fast-check";
import { expect, test } from "vitest";

import { canonicalJson, canonicalReader, canonicalNumber } from "./canonical-json.ts";

const spaced = fc.constantFrom(undefined, 1, 2);

test("canonical text is the same for what means the same, and only for that", () => {
  expect(canonicalJson(String.raw`{"b":[1.0, -0], "a":"\u0041"}`)).toBe('{"a":"A","b":[1,0]}');
  expect(canonicalJson("12345678901234567890")).not.toBe(canonicalJson("12345678901234567891"));
  const same = ["100", "1e2", "1E+2", "100.0", "1000e-1", "0.1e3"].map(canonicalNumber);
  expect(new Set(same).size).toBe(1);
  fc.assert(
    fc.property(fc.jsonValue(), spaced, (value, indent) => {
      const text = JSON.stringify(value, undefined, indent);
      expect(JSON.parse(canonicalJson(text))).toEqual(JSON.parse(text));
      expect(canonicalJson(canonicalJson(text))).toBe(canonicalJson(text));
    }),
  );
});

test("what a phone can send in one mutation is canonical in time that grows with its length", () => {
  const zeros = "0".repeat(250_000);
  expect(canonicalNumber(`1${zeros}10`)).toBe(`1${zeros}1e1`);
  expect(canonicalNumber(`0.${zeros}1`)).toBe("1e-250001");
  expect(canonicalNumber(`1e${"9".repeat(250_000)}`)).toBe(`1e${"9".repeat(250_000)}`);
  const nested = `${"[".repeat(64)}${"1.0,".repeat(50_000)}"urn"${"]".repeat(64)}`;
  expect(canonicalJson(nested)).toBe(`${"[".repeat(64)}${"1,".repeat(50_000)}"urn"${"]".repeat(64)}`);
});

/** The same, from parsed values: what parsing keeps has its keys sorted and is written again. */
function reference(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(reference).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${reference(member)}`).join(",")}}`;
}

test("canonical text is that of the sorted value, whatever its keys and strings hold and however it was spaced", () => {
  const awkward = fc.string({
    unit: fc.constantFrom("a", "!", '"', "\\", " ", "\u0000", "\ud800", "é", "1", "{", ","),
  });
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      awkward,
      fc.array(tie("tree"), { maxLength: 4 }),
      fc.dictionary(awkward, tie("tree"), { maxKeys: 24 }),
      fc.integer(),
      fc.constantFrom(null, true, false),
    ),
  }));
  fc.assert(
    fc.property(tree, spaced, (value, indent) => {
      expect(canonicalJson(JSON.stringify(value, undefined, indent))).toBe(reference(value));
    }),
    { numRuns: 2_000 },
  );
});

test("members are kept by name and dropped when null, and the reader ends behind the object", () => {
  const text = String.raw`[ {"id":7,"b":null,"d\u0061ta":{"y":[1.0],"x":"\u0041"},"a":"\"}"} , 1]`;
  const { end, canonical } = canonicalReader(text, { keep: new Set(["a", "b", "data"]), depthMax: 3 })(2);
  expect(canonical).toBe(String.raw`{"a":"\"}","data":{"x":"A","y":[1]}}`);
  expect(text.slice(end)).toBe(" , 1]");
});

const nested = (depth: number): string => `{"a":${"[".repeat(depth)}${"]".repeat(depth)}}`;

test("what is nested too deeply has no canonical text, and is passed over without recursion", () => {
  const deep = `{"a":${"[".repeat(100_000)}"]"${"]".repeat(100_000)},"b":1}`;
  const options = { keep: new Set(["a", "b"]), depthMax: 64 };
  expect(canonicalReader(`${deep},`, options)(0)).toEqual({ end: deep.length, canonical: undefined });
  expect(canonicalReader(nested(63), options)(0).canonical).toBe(nested(63));
  expect(canonicalReader(nested(64), options)(0).canonical).toBeUndefined();
});
