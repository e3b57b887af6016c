import { TidegateError } from "../errors.ts";

/** Keys from the root of the file down. */
export type Path = readonly (string | number)[];

export interface Position {
  line: number;
  column: number;
}

/** One thing to correct or to know, where it stands in the file. */
export interface Finding extends Position {
  path: Path;
  message: string;
}

/** Where the parts of a file stand. */
export interface Locator {
  /** The value at `path`; where there is none, what holds it. A map that begins on the next line: its key. */
  positionOf(path: Path): Position;
  /** The last key of `path`. */
  keyPositionOf(path: Path): Position;
  has(path: Path): boolean;
}

/** Collects everything that is wrong, so that it can be told at once. */
export interface Report {
  problem(path: Path, message: string): void;
  warning(path: Path, message: string): void;
  /**
   * Whether the values under these keys of `path` have the types that the schema gives them. Checks that read a value
   * ask first, since they run on broken files too.
   */
  sound(path: Path, ...keys: string[]): boolean;
  /** Whether the file itself says something there; a default is not given. */
  given(path: Path): boolean;
  /** A text by others, in which the variables' values stand as `${VAR}`. */
  withoutSecrets(text: string): string;
}

/** @param broken paths whose values do not follow the schema */
export function openReport(
  locator: Locator,
  {
    broken,
    problems,
    withoutSecrets,
  }: { broken: Path[]; problems: Finding[]; withoutSecrets: (text: string) => string },
): Report & { warnings: Finding[] } {
  const warnings: Finding[] = [];
  return {
    warnings,
    problem: (path, message) => problems.push({ ...locator.positionOf(path), path, message }),
    warning: (path, message) => warnings.push({ ...locator.positionOf(path), path, message }),
    given: (path) => locator.has(path),
    withoutSecrets,
    sound: (path, ...keys) => keys.every((key) => !broken.some((at) => overlaps(at, [...path, key]))),
  };
}

function overlaps(one: Path, other: Path): boolean {
  return one.every((key, depth) => depth >= other.length || String(key) === String(other[depth]));
}

/** @throws {TidegateError} `config-invalid` with every problem, in the file's order, unless there is none. */
export function throwProblems(file: string, problems: Finding[]): void {
  if (problems.length > 0) throw new TidegateError("config-invalid", toLines(file, problems).join("\n"));
}

/** `file:line:column path: message`, in the file's order. */
export function toLines(file: string, findings: Finding[]): string[] {
  return findings
    .toSorted((a, b) => a.line - b.line || a.column - b.column)
    .map(({ line, column, path, message }) => {
      const where = path.length === 0 ? "" : ` ${toPathText(path)}`;
      return `${file}:${line}:${column}${where}: ${message}`;
    });
}

function toPathText(path: Path): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    if (!/^[\w-]+$/.test(key)) return `${text}[${JSON.stringify(key)}]`;
    return text === "" ? key : `${text}.${key}`;
  }, "");
}
