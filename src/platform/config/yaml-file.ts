import {
  isAlias,
  isCollection,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type Node,
  type Pair,
  type YAMLError,
} from "yaml";

import { maskPlaceholders, placeholdersIn, substitute, unmaskPlaceholders, valueOf } from "./placeholders.ts";
import type { Finding, Locator, Path, Position } from "./report.ts";

export interface YamlFile extends Locator {
  /** The file's content, with `${VAR}`s replaced; undefined when it is not YAML at all. */
  value: unknown;
  problems: Finding[];
  /** What stands in the file at `path`, before `${VAR}`s are replaced: safe to show. */
  sourceOf(path: Path): string;
}

/** More than any sensible file uses, and far fewer than a document that explodes when its aliases are expanded. */
const aliasesMax = 100;

/** Of a mapping, and of a step of `upcast`. Expressions may have a `${` of their own, which groups. */
function isJsonata(path: Path): boolean {
  const key = path.at(-1);
  return key === "toUpstream" || key === "fromUpstream" || (key === "data" && path.at(-3) === "upcast");
}

/**
 * Reads YAML with `${VAR}`s. A variable's value becomes part of a string and is never read as YAML.
 * Broken YAML, duplicate keys, unset variables and exploding aliases are `problems`, with their positions.
 */
export function readYaml(text: string, env: NodeJS.ProcessEnv): YamlFile {
  const lines = new LineCounter();
  const source = maskPlaceholders(text);
  const document = parseDocument(source, {
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    resolveKnownTags: false,
    logLevel: "error",
  });
  const position = (offset: number): Position => toPosition(lines, offset);
  const locator = openLocator(document, position);
  const syntax = [...document.errors, ...document.warnings].map((error) =>
    toFinding(error, document, position),
  );
  const readable = document.errors.every(({ code }) => code === "DUPLICATE_KEY");
  const problems = [...syntax, ...fillPlaceholders(document, source, env, position)];
  const value = readable ? expand(document, problems, position) : undefined;
  return {
    ...locator,
    value,
    problems,
    sourceOf: (path) => {
      const { range } = nodeAt(document, path) ?? {};
      return range ? text.slice(range[0], range[1]) : "";
    },
  };
}

function toPosition(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

function toFinding(error: YAMLError, document: Document, position: (offset: number) => Position): Finding {
  const message =
    error.code === "DUPLICATE_KEY" ? "this key stands here twice" : unmaskPlaceholders(error.message);
  return { ...position(error.pos[0]), path: keyAt(document, error.pos[0]), message };
}

/** The path of the key that begins at `offset`, or the root. */
function keyAt(document: Document, offset: number): Path {
  let path: Path = [];
  visit(document, {
    Pair: (_key, pair, ancestors) => {
      if (startOf(pair.key) === offset) path = [...pathOf(ancestors), keyOf(pair)];
    },
  });
  return path;
}

function fillPlaceholders(
  document: Document,
  source: string,
  env: NodeJS.ProcessEnv,
  position: (offset: number) => Position,
): Finding[] {
  const problems: Finding[] = [];
  visit(document, {
    Scalar: (role, scalar, ancestors) => {
      if (typeof scalar.value !== "string" || !scalar.range) return;
      const path = pathOf([...ancestors, scalar]);
      const [start, end] = scalar.range;
      const problem = (offset: number, message: string) =>
        problems.push({ ...position(start + offset), path, message });
      for (const { name, offset } of placeholdersIn(source.slice(start, end))) {
        if (role === "key") problem(offset, "a variable can stand in a value only, not in a key");
        else if (valueOf(name, env) === undefined)
          problem(offset, `the environment variable ${name} is not set, or empty`);
      }
      if (scalar.value.includes("${") && !isJsonata(path))
        problem(0, "`${` begins a variable's name, as in ${VAR}; nothing else can stand in the braces");
      scalar.value = role === "key" ? unmaskPlaceholders(scalar.value) : substitute(scalar.value, env);
    },
  });
  return problems;
}

/**
 * A plain copy in which no two places share an object, so that defaults filled into one don't show in the other. Its
 * maps inherit nothing, so that a name such as `toString`, which a phone may send, finds no entity.
 */
function expand(document: Document, problems: Finding[], position: (offset: number) => Position): unknown {
  try {
    const text = JSON.stringify(document.toJS({ maxAliasCount: aliasesMax }) ?? null);
    return JSON.parse(text, (_key, value: unknown) => withoutPrototype(value));
  } catch (error) {
    let offset = 0;
    visit(document, {
      Alias: (_key, alias) => {
        offset = startOf(alias) ?? 0;
        return visit.BREAK;
      },
    });
    problems.push({
      ...position(offset),
      path: [],
      message: `aliases: ${(error as Error).message.split("\n")[0]}`,
    });
    return undefined;
  }
}

function withoutPrototype(value: unknown): unknown {
  const isMapLike = typeof value === "object" && value !== null && !Array.isArray(value);
  return isMapLike ? Object.assign(Object.create(null) as object, value) : value;
}

function openLocator(document: Document, position: (offset: number) => Position): Locator {
  const keyPositionOf = (path: Path): Position => position(startOf(pairAt(document, path)?.key) ?? 0);
  const positionOf = (path: Path): Position => {
    const node = nodeAt(document, path);
    if (node === undefined) return path.length === 0 ? position(0) : positionOf(path.slice(0, -1));
    const standsBelowItsKey = isCollection(node) ? !node.flow : isScalar(node) && node.value === null;
    if (standsBelowItsKey && pairAt(document, path) !== undefined) return keyPositionOf(path);
    return position(startOf(node) ?? 0);
  };
  return { positionOf, keyPositionOf, has: (path) => nodeAt(document, path) !== undefined };
}

function nodeAt(document: Document, path: Path): Node | undefined {
  let node: unknown = document.contents;
  for (const key of path) {
    const holder = isAlias(node) ? node.resolve(document) : node;
    if (isMap(holder)) node = holder.items.find((pair) => keyOf(pair) === String(key))?.value;
    else if (isSeq(holder)) node = holder.items[Number(key)];
    else return undefined;
  }
  return (node ?? undefined) as Node | undefined;
}

function pairAt(document: Document, path: Path): Pair | undefined {
  const node = nodeAt(document, path.slice(0, -1));
  const holder = isAlias(node) ? node.resolve(document) : node;
  return isMap(holder) ? holder.items.find((pair) => keyOf(pair) === String(path.at(-1))) : undefined;
}

function pathOf(ancestors: readonly unknown[]): Path {
  return ancestors.flatMap((node, depth): Path => {
    if (isPair(node)) return [keyOf(node)];
    return isSeq(node) ? [node.items.indexOf(ancestors[depth + 1])] : [];
  });
}

function keyOf(pair: Pair): string {
  return unmaskPlaceholders(isScalar(pair.key) ? String(pair.key.value) : String(pair.key));
}

function startOf(node: unknown): number | undefined {
  return isScalar(node) || isAlias(node) || isCollection(node) ? node.range?.[0] : undefined;
}
