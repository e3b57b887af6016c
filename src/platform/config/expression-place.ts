/** Where in an expression something is: its line and column, both from 1, and the token that stands there. */
export interface ExpressionPlace {
  line: number;
  column: number;
  /** Cut out of the expression, so it shows what was configured and never what was evaluated. */
  token: string | undefined;
}

/**
 * The place that a JSONata error tells; undefined when it tells none.
 *
 * JSONata's `position` is the end of the token it was at. Of a function that is the bracket behind its name.
 */
export function placeIn(
  expression: string,
  { position, token }: { position?: unknown; token?: unknown },
): ExpressionPlace | undefined {
  if (typeof position !== "number" || position < 1 || position > expression.length) return undefined;
  const start = typeof token === "string" ? startOf(token, expression, position) : undefined;
  const before = expression.slice(0, start ?? position - 1).split(/\r\n|[\r\n]/);
  return {
    line: before.length,
    column: (before.at(-1) ?? "").length + 1,
    token: start === undefined ? undefined : (token as string),
  };
}

/** `line 2, column 14, at "*"` */
export function toPlaceText({ line, column, token }: ExpressionPlace): string {
  return `line ${line}, column ${column}${token === undefined ? "" : `, at ${JSON.stringify(token)}`}`;
}

function startOf(token: string, expression: string, position: number): number | undefined {
  const start = token === "" ? -1 : expression.lastIndexOf(token, position - token.length);
  return start >= 0 && position - (start + token.length) <= 1 ? start : undefined;
}
