import jsonata from "jsonata";

import { placeIn, toPlaceText } from "./expression-place.ts";
import type { Path, Report } from "./report.ts";

/** Reports an expression that does not parse, and where in it. */
export function checkJsonata(expression: string, path: Path, report: Report): void {
  const problem = jsonataProblem(expression);
  if (problem !== undefined) report.problem(path, `is not JSONata: ${problem}`);
}

/** Why an expression does not parse; undefined when it does. */
export function jsonataProblem(expression: string): string | undefined {
  try {
    jsonata(expression);
    return undefined;
  } catch (error) {
    const { message } = error as Error;
    const place = placeIn(expression, error as { position?: number; token?: string });
    return place === undefined ? message : `${message} (${toPlaceText(place)} of the expression)`;
  }
}
