import fc from "fast-check";
import { expect, test } from "vitest";

import { mergePatch } from "./json-text.ts";
import { composePatches, onlyWhatIsIn, patchBetween } from "./merge-patch.ts";

/** Records as merge patches can tell them: without nulls in objects. */
const { value: anyValue } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom("", "a", "b", 0, 1, true, "9007199254740993"),
    fc.array(fc.nat(2), { maxLength: 2 }),
    fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { maxKeys: 3 }),
  ),
}));
const anyRecord = fc.dictionary(fc.constantFrom("a", "b", "c", "__proto__x"), anyValue, { maxKeys: 4 });

test("the patch between two records makes one of the other, and says nothing of what is equal", () => {
  fc.assert(
    fc.property(anyRecord, anyRecord, (before, after) => {
      const patch = patchBetween(JSON.stringify(before), JSON.stringify(after));
      expect(JSON.parse(mergePatch(JSON.stringify(before), patch))).toEqual(after);
      expect(patchBetween(JSON.stringify(after), JSON.stringify(after))).toBe("{}");
    }),
  );
});

test("digits beyond a double count", () => {
  expect(patchBetween('{"n":9007199254740993}', '{"n":9007199254740992}')).toBe('{"n":9007199254740992}');
  expect(patchBetween('{"n":1.0}', '{"n":1}')).toBe("{}");
});

test("two patches in one do what they do one after the other", () => {
  const record = '{"a":1,"b":{"c":1,"d":2},"e":3}';
  const cases = [
    ['{"a":2}', '{"e":null}'],
    ['{"a":2,"e":null}', '{"a":null,"e":5}'],
    ['{"b":{"c":null}}', '{"b":{"d":3,"f":4}}'],
    ['{"b":{"c":9}}', '{"b":null}'],
    ['{"a":[1]}', '{"a":[2]}'],
    ["{}", '{"b":{"c":null}}'],
  ];
  for (const [first = "", second = ""] of cases) {
    const composed = composePatches(first, second);
    expect(mergePatch(record, composed), `${first} ${second}`).toBe(
      mergePatch(mergePatch(record, first), second),
    );
  }
});

test("of a patch is left what the record has, in the patch's words, also a null", () => {
  const patch = '{"a":"urn:x","b":null,"c":{"d":null,"e":1.0},"f":null,"g":{"h":1}}';
  expect(onlyWhatIsIn('{"f":null,"c":{"e":1},"a":"17","g":2}', patch)).toBe(
    '{"a":"urn:x","c":{"e":1.0},"f":null,"g":{"h":1}}',
  );
});
