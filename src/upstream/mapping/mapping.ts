import { jsonataProblem } from "../../platform/config/check-jsonata.ts";
import type { Evaluator } from "./evaluator.ts";

/** Turns one JSON text into another. @param variables what the expression sees as `$name` besides, as JSON text. */
export type Mapping = (text: string, variables?: Record<string, string | undefined>) => Promise<string>;

/** A mapping that could not be applied: to this data, or at all. Carries no data of it. */
export class MappingError extends Error {
  /** Where the mapping stands in the configuration. */
  readonly place: string;

  constructor(place: string, problem: string) {
    super(`${place}: ${problem}`);
    this.name = "MappingError";
    this.place = place;
  }
}

interface MappingOptions {
  evaluator: Evaluator;
  /** Where the expression stands in the configuration: every error names it. */
  place: string;
  /** Told each time that it took the data. */
  took?: (place: string) => void;
}

const identity: Mapping = (text) => Promise.resolve(text);

/**
 * Compiles a JSONata expression. `$` is the identity: the text goes through untouched and unread.
 *
 * Every other expression is evaluated by the `evaluator`, within its bounds. It works on doubles, so a number that a
 * double can't hold exactly is an error rather than changed silently.
 * @throws {MappingError} when the expression can't be parsed, and from the mapping when it can't be applied: nothing
 * was sent, the caller parks.
 */
export function compileMapping(expression: string, { evaluator, place, took }: MappingOptions): Mapping {
  if (expression.trim() === "$") return identity;
  const problem = jsonataProblem(expression);
  if (problem !== undefined) throw new MappingError(place, `is not JSONata: ${problem}`);
  return async (text, variables = {}) => {
    const evaluated = await evaluator.evaluate({ expression, text, variables });
    if ("problem" in evaluated) throw new MappingError(place, evaluated.problem);
    took?.(place);
    return evaluated.text;
  };
}
