import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { UpstreamError } from "../connector.ts";

export type KeyType = NonNullable<EntityConfig["keyType"]>;

/** As the protocol writes them: `07` would be another name of 7. */
const forms: Readonly<Record<KeyType, RegExp>> = {
  string: /^[^]+$/,
  number: /^(0|-?[1-9]\d*|-?(0|[1-9]\d*)\.\d+)$/,
  guid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
};

export function keyTypeOf({ keyType = "string" }: EntityConfig): KeyType {
  return keyType;
}

/** A string literal: in quotes, those inside it doubled. */
export function stringLiteral(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

export function isKey(id: string, keyType: KeyType): boolean {
  return forms[keyType].test(id) && id.isWellFormed();
}

/** GUIDs have no letter case; of everything else each sign counts, whatever the service's collation. */
export function isSameKey(one: string, other: string, keyType: KeyType): boolean {
  return keyType === "guid" ? one.toLowerCase() === other.toLowerCase() : one === other;
}

/**
 * The key predicate of an ID, percent-encoded.
 * @throws {UpstreamError} `not-sent`, parked, for an ID that is no key of this type: an unquoted one could say anything.
 */
export function keyPredicate(id: string, keyType: KeyType): string {
  if (!isKey(id, keyType)) {
    throw new UpstreamError(`the record's ID is no ${keyType} key`, {
      certainty: "not-sent",
      disposition: "park",
    });
  }
  return `(${encodeURIComponent(keyType === "string" ? stringLiteral(id) : id)})`;
}

/** The ID as a JSON value. @throws {UpstreamError} as `keyPredicate`. */
export function keyValue(id: string, keyType: KeyType): string {
  keyPredicate(id, keyType);
  return keyType === "number" ? id : JSON.stringify(id);
}

/**
 * The ID in an entity's URL (`…/People('O''Neil')`, `…/People(Id=7)`, `…/People/7`); undefined when it is none of this set,
 * or no key of its type.
 */
export function idInUrl(url: string | undefined, entity: EntityConfig): string | undefined {
  if (url === undefined || !URL.canParse(url, "http://upstream/")) return undefined;
  const { pathname } = new URL(url, "http://upstream/");
  const set = entity.path.slice(entity.path.lastIndexOf("/"));
  const id = inParentheses(decoded(pathname), set, keyTypeOf(entity)) ?? inSegment(pathname, set);
  return id !== undefined && isKey(id, keyTypeOf(entity)) ? id : undefined;
}

/** The set's first mention: a key may have anything in it. */
function inParentheses(path: string | undefined, set: string, keyType: KeyType): string | undefined {
  const at = path?.indexOf(`${set}(`) ?? -1;
  if (path === undefined || at < 0 || !path.endsWith(")")) return undefined;
  const literal = path.slice(at + set.length + 1, -1).replace(/^[A-Za-z_]\w*=/, "");
  const quoted = /^'((?:[^']|'')*)'$/.exec(literal)?.[1];
  // Some write 64-bit numbers in quotes.
  return quoted === undefined && keyType !== "string" ? literal : quoted?.replaceAll("''", "'");
}

/** As services write it that have a path segment for the key. */
function inSegment(pathname: string, set: string): string | undefined {
  const before = pathname.lastIndexOf("/");
  const segment = decoded(pathname.slice(before + 1));
  return decoded(pathname.slice(0, before))?.endsWith(set) && !segment?.startsWith("(") ? segment : undefined;
}

function decoded(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
