import { describe, expect, test } from "vitest";

import { canonicalJson } from "../platform/canonical-json.ts";
import { mergePatch, slicesAt } from "../platform/json-text.ts";
import { patchBetween } from "../platform/merge-patch.ts";
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
    ["nothing is touched", false, {}, { a: 1 }, unknown, { a: 1, b: 9 }],
    ["nothing in an object is touched", false, { o: {} }, { o: { a: 1 } }, unknown, { o: { a: 1, b: 9 } }],
    ["an object is made where others have made a value", true, { o: {} }, { o: null }, unknown, { o: 5 }],
    ["an object instead of a value, of both", true, { o: { a: 2 } }, unknown, { o: 5 }, { o: { b: 1 } }],
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

/** Objects over a few names, some of which mean something to JavaScript; numbers that a double can't tell apart. */
const names = ["a", "b", "__proto__", "o"];
const scalars = [
  "1",
  "9007199254740992",
  "9007199254740993",
  '"x"',
  "[1]",
  '[{"a":1,"b":2}]',
  '[{"b":2,"a":1}]',
];

function newRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
}

function randomObject(random: (below: number) => number, depth: number): string {
  const members = names
    .filter(() => random(3) > 0)
    .map(
      (name) =>
        `"${name}":${depth > 0 && random(2) ? randomObject(random, depth - 1) : scalars[random(scalars.length)]}`,
    );
  return `{${random(2) ? members.join(",") : members.toReversed().join(" , ")}}`;
}

function edited(random: (below: number) => number, record: string): string {
  const patch = randomObject(random, 1);
  const isRemoval = random(3) === 0;
  return mergePatch(
    record,
    random(2) ? `{"${names[random(4)]}":${isRemoval ? "null" : scalars[random(7)]}}` : patch,
  );
}

/** What stands at each place; of an object, that it is one. */
function placesIn(record: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (value: unknown, path: string): void => {
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    found.set(path, isObject ? "{}" : canonicalJson(JSON.stringify(value)));
    for (const [key, inner] of isObject ? Object.entries(value) : []) walk(inner, `${path}/${key}`);
  };
  // As texts, so that no digit of a number is lost.
  walk(JSON.parse(record.replaceAll(/\d{5,}/g, '"$&"')), "");
  return found;
}

/** As an app tells it: what it saw of each field that it changes, null for one that was not there. */
function toldOf(record: string, patch: string): string {
  const held = new Map(slicesAt(record).map(({ key, start, end }) => [key, record.slice(start, end)]));
  const members = slicesAt(patch).map(({ key, start, end }) => {
    const [old, value] = [held.get(key) ?? "null", patch.slice(start, end)];
    return `"${key}":${old.startsWith("{") && value.startsWith("{") ? toldOf(old, value) : old}`;
  });
  return `{${members.join(",")}}`;
}

test("of random edits of both sides a merge keeps each change of either, or it clashes; and never where they are apart", () => {
  const seen = { merged: 0, clashed: 0 };
  for (let seed = 1; seed <= 200; seed++) {
    const random = newRandom(seed);
    const before = randomObject(random, 2);
    const [mine, theirs] = [edited(random, before), edited(random, before)];
    const patch = patchBetween(before, mine);
    const base = toldOf(before, patch);
    const sent = touchedIn(patch, base);
    const [was, ours, others] = [placesIn(before), placesIn(mine), placesIn(theirs)];
    const [byUs, byThem] = [changed(was, ours), changed(was, others)];
    const facts = JSON.stringify({ seed, before, mine, theirs });
    if (isClash(sent, { base, before: undefined, current: theirs })) {
      seen.clashed++;
      const areApart = byUs.every((one) =>
        byThem.every((other) => !isWithin(one, other) && !isWithin(other, one)),
      );
      expect(areApart, facts).toBe(false);
      continue;
    }
    seen.merged++;
    const merged = placesIn(mergePatch(theirs, sent));
    for (const [paths, side] of [
      [byUs, ours],
      [byThem, others],
    ] as const) {
      // An object is there for what is in it: one that others have removed comes back with a field that is new.
      const values = paths.filter((path) => [was, side].some((one) => (one.get(path) ?? "{}") !== "{}"));
      const kept = (record: Map<string, string>) => values.map((path) => `${path}: ${record.get(path)}`);
      expect(kept(merged), facts).toEqual(kept(side));
    }
  }
  expect(Math.min(seen.merged, seen.clashed)).toBeGreaterThan(50);
});

const changed = (was: Map<string, string>, is: Map<string, string>): string[] =>
  [...new Set([...was.keys(), ...is.keys()])].filter((path) => was.get(path) !== is.get(path));
const isWithin = (one: string, other: string): boolean => one === other || one.startsWith(`${other}/`);
