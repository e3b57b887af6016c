import type { EntityConfig } from "../../platform/config/schema.ts";
import { UpstreamError } from "../connector.ts";

type KeyType = NonNullable<EntityConfig["keyType"]>;

const forms: Readonly<Record<KeyType, RegExp>> = {
  string: /^[^]+$/,
  number: /^-?\d+(\.\d+)?$/,
  guid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
};

/** A string literal: in quotes, those inside it doubled. */
export function stringLiteral(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

/**
 * The key predicate of an ID, percent-encoded.
 * @throws {UpstreamError} `not-sent`, parked, for an ID that is no key of this type: an unquoted one could say anything.
 */
export function keyPredicate(id: string, keyType: KeyType): string {
  if (!forms[keyType].test(id) || !id.isWellFormed()) {
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

/** The ID in an entity's URL (`…/People('O''Neil')`, `…/People(Id=7)`); undefined when it is not one of this set. */
export function idInUrl(url: string | undefined, entitySet: string): string | undefined {
  if (url === undefined || !URL.canParse(url, "http://upstream")) return undefined;
  const path = decoded(new URL(url, "http://upstream").pathname);
  const set = path?.lastIndexOf(`${entitySet}(`) ?? -1;
  if (path === undefined || set < 0 || !path.endsWith(")")) return undefined;
  const literal = path.slice(set + entitySet.length + 1, -1).replace(/^[A-Za-z_]\w*=/, "");
  const quoted = /^'((?:[^']|'')*)'$/.exec(literal)?.[1];
  if (quoted !== undefined) return quoted.replaceAll("''", "'");
  return forms.number.test(literal) || forms.guid.test(literal) ? literal : undefined;
}

function decoded(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
