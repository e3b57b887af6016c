import * as fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";

import { openEvaluator } from "./evaluator.ts";
import { compileMapping as compile, MappingError, type Mapping } from "./mapping.ts";

const evaluator = openEvaluator();
afterAll(async () => await evaluator.close());

const place = "upstreams.crm.entities.activity.toUpstream";
const compileMapping = (expression: string): Mapping => compile(expression, { evaluator, place });

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

test("$eval is off", async () => {
  await expect(compileMapping('$eval("1+1")')("{}")).rejects.toThrow("$eval is not available");
});

test("an expression that can't be parsed fails when it is compiled", () => {
  expect(() => compileMapping('{ "a": ')).toThrow(MappingError);
});

test("a failure tells the place, and never what the data was", async () => {
  const expression = '{\n  "a": a,\n  "b": $number(secret)\n}';
  const failure: unknown = await compileMapping(expression)('{"secret":"diagnosis"}').catch(
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(MappingError);
  expect((failure as MappingError).message).toBe(
    `${place}: JSONata D3030 (line 3, column 9, at "number" of the expression)`,
  );
  expect((failure as MappingError).cause).toBeUndefined();
});

test.for([
  "$error(secret)",
  "secret * 2",
  "$lookup({}, secret)()",
  "$toMillis(secret)",
  "{ secret: 1, $ : 2 }",
  "[1..secret]",
])("%s shows nothing of the data", async (expression) => {
  await expect(compileMapping(expression)('{"secret":"diagnosis"}')).rejects.toThrow(
    /^upstreams\.crm[.\w]+: JSONata [A-Z]\d{4} \((?!.*diagnosis)/,
  );
});

test("a name that one evaluation gave a value is not known to the next", async () => {
  const mapping = compileMapping('$append([$exists($seen)], [$seen := note, "x"])[0]');
  expect(await mapping('{"note":"diagnosis"}')).toBe("false");
  expect(await mapping('{"note":"other"}')).toBe("false");
});
