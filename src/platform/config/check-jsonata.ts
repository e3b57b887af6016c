import jsonata from "jsonata";

import type { Path, Report } from "./report.ts";

/** Reports an expression that does not parse. */
export function checkJsonata(expression: string, path: Path, report: Report): void {
  try {
    jsonata(expression);
  } catch (error) {
    const { message, position } = error as { message: string; position?: number };
    const where = position === undefined ? "" : ` (at character ${position} of the expression)`;
    report.problem(path, `is not JSONata: ${message}${where}`);
  }
}
