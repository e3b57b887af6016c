import jsonata from "jsonata";

import { canonicalNumber } from "../../platform/canonical-json.ts";
import { placeIn, toPlaceText } from "../../platform/config/expression-place.ts";

export interface Evaluation {
  expression: string;
  /** JSON: what the expression sees as `$`. */
  text: string;
  /** JSON, by name: what it sees as `$name`. */
  variables: Record<string, string | undefined>;
}

/** The result as JSON text; or why there is none, without any of the data. */
export type Evaluated = { text: string } | { problem: string };

export interface EvaluationBounds {
  /** Looked at between JSONata's steps. */
  timeoutMs: number;
  /** Depth of evaluation, against recursion without an end. */
  depthMax: number;
  /** Elements in one sequence. */
  sequenceMax: number;
  resultCharsMax: number;
}

class Refused extends Error {}

/**
 * Evaluates expressions one after the other, each compiled once. The bounds are JSONata's own: one step of it, such as a
 * regular expression, may take any time, and any memory. Who calls has to bound the thread.
 */
export function createEvaluate(bounds: EvaluationBounds): (evaluation: Evaluation) => Promise<Evaluated> {
  const compiled = new Map<string, jsonata.Expression>();
  return async ({ expression, text, variables }) => {
    try {
      const known = compiled.get(expression) ?? compile(expression, bounds);
      compiled.set(expression, known);
      refuseInexactNumbers(text);
      const result: unknown = await known.evaluate(JSON.parse(text), parsed(variables));
      return { text: toText(result, bounds) };
    } catch (error) {
      return { problem: error instanceof Refused ? error.message : whatFailed(error, expression) };
    }
  };
}

function compile(expression: string, bounds: EvaluationBounds): jsonata.Expression {
  const { timeoutMs: timeout, depthMax: stack, sequenceMax: sequence } = bounds;
  const compiled = jsonata(expression, { timeout, stack, sequence });
  compiled.registerFunction("eval", () => {
    throw new Refused("$eval is not available in mappings");
  });
  return compiled;
}

function parsed(variables: Evaluation["variables"]): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(variables).map(([name, text]) => [
      name,
      text === undefined ? undefined : JSON.parse(text),
    ]),
  );
}

/** JSONata's messages quote the data; its code and the place in the expression tell enough. */
function whatFailed(error: unknown, expression: string): string {
  const { code } = error as Partial<jsonata.JsonataError>;
  // One that is not JSONata's own, such as a stack that was too small.
  if (typeof code !== "string") return "the expression failed";
  const place = placeIn(expression, error as Partial<jsonata.JsonataError>);
  return `JSONata ${code}${place === undefined ? "" : ` (${toPlaceText(place)} of the expression)`}`;
}

function toText(result: unknown, { resultCharsMax }: EvaluationBounds): string {
  const text = JSON.stringify(result, (_key, value: unknown) => {
    if (typeof value === "function" || isLambda(value)) throw new Refused("the mapping gave a function");
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new Refused("the mapping gave a number that JSON can't hold");
    }
    return value;
  }) as string | undefined;
  if (text === undefined) throw new Refused("the mapping gave nothing");
  if (text.length > resultCharsMax)
    throw new Refused(`the mapping gave more than ${resultCharsMax} characters`);
  return text;
}

/** JSONata's own functions and lambdas are plain objects with a mark. */
function isLambda(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    ("_jsonata_lambda" in value || "_jsonata_function" in value)
  );
}

const stringOrNumber = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

function refuseInexactNumbers(text: string): void {
  for (const [token] of text.matchAll(stringOrNumber)) {
    if (!token.startsWith('"') && !isExact(token)) {
      throw new Refused("the data has a number that the mapping can't hold exactly");
    }
  }
}

function isExact(token: string): boolean {
  const value = Number(token);
  if (!Number.isFinite(value)) return false;
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return false;
  return canonicalNumber(token) === canonicalNumber(String(value));
}
