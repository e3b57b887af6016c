import jsonata from "jsonata";

import { canonicalNumber } from "../platform/canonical-json.ts";

/** Turns one JSON text into another. @param variables what the expression sees as `$name` besides. */
export type Mapping = (text: string, variables?: Record<string, unknown>) => Promise<string>;

/** A mapping that could not be applied: to this data, or at all. Carries no data of it. */
export class MappingError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "MappingError";
  }
}

export interface MappingBounds {
  timeoutMs?: number;
  /** Depth of evaluation, against recursion without an end. */
  stack?: number;
  /** Elements in one sequence. */
  sequence?: number;
}

const identity: Mapping = (text) => Promise.resolve(text);

/**
 * Compiles a JSONata expression. `$` is the identity: the text goes through untouched and unread.
 *
 * Every other expression works on doubles, so a number that a double can't hold exactly is an error rather than
 * changed silently. Evaluation is bounded in time, depth and size, except inside one regular expression.
 * @throws {MappingError} when the expression can't be parsed, and from the mapping when it can't be applied: nothing
 * was sent, the caller parks.
 */
export function compileMapping(
  expression: string,
  { timeoutMs = 1000, stack = 500, sequence = 100_000 }: MappingBounds = {},
): Mapping {
  if (expression.trim() === "$") return identity;
  const compiled = compile(expression, { timeout: timeoutMs, stack, sequence });
  return async (text, variables) => {
    refuseInexactNumbers(text);
    return toText(await evaluate(compiled, JSON.parse(text), variables));
  };
}

function compile(expression: string, options: jsonata.JsonataOptions): jsonata.Expression {
  try {
    const compiled = jsonata(expression, options);
    compiled.registerFunction("eval", () => {
      throw new MappingError("$eval is not available in mappings");
    });
    return compiled;
  } catch (error) {
    throw new MappingError(`the mapping is not valid JSONata: ${(error as Error).message}`);
  }
}

async function evaluate(
  compiled: jsonata.Expression,
  input: unknown,
  variables: Record<string, unknown> | undefined,
): Promise<unknown> {
  try {
    return await compiled.evaluate(input, variables);
  } catch (error) {
    if (error instanceof MappingError) throw error;
    // JSONata's messages quote the data; its code and position tell enough.
    const { code = "unknown", position = 0 } = error as Partial<jsonata.JsonataError>;
    throw new MappingError(`the mapping failed: JSONata ${code} at character ${position}`);
  }
}

function toText(result: unknown): string {
  const text = JSON.stringify(result, (_key, value: unknown) => {
    if (typeof value === "function" || isLambda(value)) throw new MappingError("the mapping gave a function");
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new MappingError("the mapping gave a number that JSON can't hold");
    }
    return value;
  }) as string | undefined;
  if (text === undefined) throw new MappingError("the mapping gave nothing");
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
      throw new MappingError("the data has a number that the mapping can't hold exactly");
    }
  }
}

function isExact(token: string): boolean {
  const value = Number(token);
  if (!Number.isFinite(value)) return false;
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return false;
  return canonicalNumber(token) === canonicalNumber(String(value));
}
