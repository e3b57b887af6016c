import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { compileMapping, MappingError } from "./mapping.ts";

test.for(["$", " $ "])("%j passes any text untouched, even what it could not read", async (expression) => {
  const text = '{ "a": 9007199254740993, "b": 1e400, "c": "\\ud800" }';
  expect(await compileMapping(expression)(text)).toBe(text);
});

test("an expression gives the upstream's shape", async () => {
  const mapping = compileMapping('{ "Minutter": minutes, "Mentor": { "Id": mentor }, "Kilde": "app" }');
  expect(await mapping('{"mentor":"17","minutes":45}')).toBe(
    '{"Minutter":45,"Mentor":{"Id":"17"},"Kilde":"app"}',
  );
});

test("what a merge patch sets to null stays null, and what it does not name stays away", async () => {
  const mapping = compileMapping('{ "Minutter": minutes, "Notat": note }');
  expect(await mapping('{"note":null}')).toBe('{"Notat":null}');
});

describe("a number that a double can't hold is an error and never changed silently", () => {
  const mapping = compileMapping('{ "n": n }');
  test.for([
    "9007199254740993",
    "-9007199254740993",
    "12345678901234567890",
    "0.1000000000000000055",
    "1e400",
    "1e-400",
  ])("%s", async (number) => {
    await expect(mapping(`{"n":${number}}`)).rejects.toThrow(MappingError);
    await expect(mapping(`{"deep":[{"n": [0, ${number} ]}]}`)).rejects.toThrow(MappingError);
  });

  test.for(["0", "-1", "0.1", "1.50", "9007199254740991", "1e3", "-2.5E-3", "123456789.123456"])(
    "%s is held",
    async (number) => {
      const mapped = JSON.parse(await mapping(`{"n":${number}}`)) as { n: number };
      expect(mapped.n).toBe(Number(number));
    },
  );

  test("digits inside strings and keys are text", async () => {
    const text = '{"n":"a\\"9007199254740993","9007199254740993":"\\\\"}';
    expect(await mapping(text)).toBe('{"n":"a\\"9007199254740993"}');
  });

  test("every safe integer and every string comes through", async () => {
    const value = fc.oneof(
      fc.maxSafeInteger(),
      fc.string({ unit: "binary" }),
      fc.boolean(),
      fc.constant(null),
    );
    await fc.assert(
      fc.asyncProperty(value, async (n) => {
        expect(JSON.parse(await mapping(JSON.stringify({ n })))).toEqual({ n });
      }),
    );
  });
});

describe("a result that is no JSON is an error", () => {
  test.for(["missing", "function($x) { $x }", "$sum", '{ "f": function() { 1 } }', '{ "f": $uppercase }'])(
    "%s",
    async (expression) => {
      await expect(compileMapping(expression)("{}")).rejects.toThrow(MappingError);
    },
  );
});

describe("evaluation is bounded", () => {
  test.for([
    ["in time", "($f := function($n) { $f($n + 1) }; $f(0))"],
    ["in depth", "($f := function($n) { 1 + $f($n + 1) }; $f(0))"],
    ["in size", "$count([1..9000000])"],
  ] as const)("%s", async ([, expression]) => {
    const mapping = compileMapping(expression, { timeoutMs: 100 });
    await expect(mapping("{}")).rejects.toThrow(MappingError);
  });

  test("one evaluation that runs out of time does not stop others", async () => {
    const endless = compileMapping("($f := function($n) { $f($n + 1) }; $f(0))", { timeoutMs: 100 });
    const [failed, mapped] = await Promise.allSettled([endless("{}"), compileMapping("a")('{"a":1}')]);
    expect([failed.status, mapped.status]).toEqual(["rejected", "fulfilled"]);
  });
});

test("$eval is off", async () => {
  await expect(compileMapping('$eval("1+1")')("{}")).rejects.toThrow("$eval is not available");
});

test("an expression that can't be parsed fails when it is compiled", () => {
  expect(() => compileMapping('{ "a": ')).toThrow(MappingError);
});

test("a failure tells where, and never what the data was", async () => {
  const failure: unknown = await compileMapping("$number(secret)")('{"secret":"diagnosis"}').catch(
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(MappingError);
  expect((failure as MappingError).message).toMatch(/JSONata D3030/);
  expect((failure as MappingError).message).not.toContain("diagnosis");
  expect((failure as MappingError).cause).toBeUndefined();
});
