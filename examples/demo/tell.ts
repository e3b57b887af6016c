import { isDeepStrictEqual, inspect, styleText } from "node:util";

/** A promise of the story that did not hold. */
export class Broken extends Error {}

let held = 0;

export function heldCount(): number {
  return held;
}

export function heading(text: string): void {
  console.log(`\n${style("bold", text)}\n`);
}

export function say(...lines: string[]): void {
  for (const line of lines) console.log(line && `  ${line}`);
}

/** Says that something holds, after having looked. @throws {Broken} when it does not. */
export function check(claim: string, actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Broken(`does not hold: ${claim}\nfound    ${show(actual)}\nexpected ${show(expected)}`);
  }
  held++;
  console.log(`  ${style("green", "ok")} ${claim}`);
}

function show(value: unknown): string {
  return inspect(value, { depth: 6, breakLength: 96 });
}

/** Columns as wide as they need to be. */
export function table(rows: (string | number)[][]): void {
  const texts = rows.map((row) => row.map(String));
  const widths = (texts[0] ?? []).map((_, column) =>
    Math.max(...texts.map((row) => row[column]?.length ?? 0)),
  );
  for (const row of texts) {
    console.log(
      `    ${row
        .map((text, column) => text.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd()}`,
    );
  }
  console.log("");
}

/** A short form of a temp ID, for where the whole would not fit. */
export function short(text: string): string {
  return text.replaceAll(/urn(?::|%3A)uuid(?::|%3A)([0-9a-f]{4})[0-9a-f-]+/gi, "urn:uuid:$1…");
}

function style(format: "bold" | "green", text: string): string {
  // Plain where it would not be understood: not a terminal, NO_COLOR.
  return styleText(format, text, { stream: process.stdout });
}
