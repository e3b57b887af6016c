import { describe, expect, test } from "vitest";

import { mergePatch } from "../platform/json-text.ts";
import { isClash, touchedIn } from "./three-way.ts";

const text = (value: unknown): string => JSON.stringify(value);

describe("what a patch touches", () => {
  test.each([
    ["another value", { a: 2 }, { a: 1 }, { a: 2 }],
    ["the value that it had", { a: 1, b: 2 }, { a: 1, b: 1 }, { b: 2 }],
    ["what its author does not tell", { a: 1 }, {}, { a: 1 }],
    ["what was not there", { a: 1, b: null }, { a: null, b: null }, { a: 1 }],
    ["what is removed", { a: null }, { a: 1 }, { a: null }],
    ["a field in an object", { o: { a: 1, b: 2 } }, { o: { a: 1, b: 1 } }, { o: { b: 2 } }],
    ["an array, as one value", { l: [1, 2] }, { l: [1] }, { l: [1, 2] }],
    ["an array that is the same", { l: [1, { a: 2 }] }, { l: [1, { a: 2 }] }, {}],
    ["an object instead of a value", { o: { a: 1 } }, { o: 1 }, { o: { a: 1 } }],
  ])("%s", (_what, patch, base, touched) => {
    expect(JSON.parse(touchedIn(text(patch), text(base)))).toEqual(touched);
  });

  test("numbers that a double can't hold are told apart, and one that is written in another way is not", () => {
    const patch = '{"big":9007199254740993,"same":1.50}';
    expect(touchedIn(patch, '{"big":9007199254740992,"same":15e-1}')).toBe('{"big":9007199254740993}');
  });
});

describe("a clash", () => {
  const unknown = undefined;
  test.each([
    ["only the phone has changed it", false, { a: 2 }, { a: 1 }, unknown, { a: 1 }],
    ["both, to the same", false, { a: 2 }, { a: 1 }, unknown, { a: 2 }],
    ["both, differently", true, { a: 2 }, { a: 1 }, unknown, { a: 3 }],
    ["the others have removed it", true, { a: 2 }, { a: 1 }, unknown, {}],
    ["both have removed it", false, { a: null }, { a: 1 }, unknown, {}],
    ["the phone has removed what others have changed", true, { a: null }, { a: 1 }, unknown, { a: 3 }],
    ["both have made it", true, { a: 2 }, { a: null }, unknown, { a: 3 }],
    ["only the phone has made it", false, { a: 2 }, { a: null }, unknown, {}],
    ["a null is as good as nothing", false, { a: 2 }, { a: null }, unknown, { a: null }],
    ["in objects by field", false, { o: { a: 2 } }, { o: { a: 1 } }, unknown, { o: { a: 1, b: 9 } }],
    ["in objects too", true, { o: { a: 2 } }, { o: { a: 1 } }, unknown, { o: { a: 3 } }],
    ["others have removed the object", true, { o: { a: 2 } }, { o: { a: 1 } }, unknown, {}],
    ["others have replaced the object", true, { o: { a: 2 } }, { o: { a: 1 } }, unknown, { o: 5 }],
    ["the object is new, of both", false, { o: { a: 2 } }, { o: null }, unknown, { o: { b: 1 } }],
    ["arrays are one value", true, { l: [1, 2] }, { l: [1] }, unknown, { l: [1, 3] }],
    ["nothing is told, and the version is known", false, { a: 2 }, unknown, { a: 1 }, { a: 1 }],
    ["nothing is told, and others have changed it", true, { a: 2 }, unknown, { a: 1 }, { a: 3 }],
    ["nothing is told, and nobody knows", true, { a: 2 }, unknown, unknown, { a: 1 }],
    ["nothing is told, and it is so already", false, { a: 2 }, unknown, unknown, { a: 2 }],
    ["one field is not told", true, { a: 2, b: 2 }, { a: 1 }, unknown, { a: 1, b: 1 }],
    ["what is told counts more than what is known", false, { a: 2 }, { a: 3 }, { a: 1 }, { a: 3 }],
    ["an empty object", false, { o: {} }, { o: { a: 1 } }, unknown, { o: { a: 1 } }],
  ])("%s: %s", (_what, expected, patch, base, before, current) => {
    const sides = {
      base: base && text(base),
      before: before && text(before),
      current: text(current),
    };
    expect(isClash(text(patch), sides)).toBe(expected);
  });

  test("what is merged twice is merged once", () => {
    const [patch, base] = [text({ a: 2, o: { x: 1 }, gone: null }), text({ a: 1, o: { x: 0 }, gone: 5 })];
    const current = text({ a: 1, o: { x: 0, y: 7 }, gone: 5, b: 3 });
    const sent = touchedIn(patch, base);
    const merged = mergePatch(current, sent);
    expect(isClash(sent, { base, before: undefined, current: merged })).toBe(false);
    expect(mergePatch(merged, sent)).toBe(merged);
  });
});
