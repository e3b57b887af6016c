import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { OperationConfig } from "../../platform/config/operation-schema.ts";
import { withValueAt } from "../../platform/json-text.ts";
import { toForm } from "./form.ts";

export interface Body {
  /** The header that says what it is, as name and value; empty where that is the upstream's usual one. */
  contentType: string[];
  body: string | undefined;
}

export const noBody: Body = { contentType: [], body: undefined };

/** What is sent of a record: in its envelope, as JSON or as a form. */
export function bodyOf(
  { envelope, encoding }: EntityConfig,
  { contentType }: Pick<OperationConfig, "contentType">,
  record: string,
): Body {
  const wrapped = envelope?.request === undefined ? record : withValueAt("{}", envelope.request, record);
  const type = contentType ?? (encoding === "form" ? "application/x-www-form-urlencoded" : undefined);
  return {
    contentType: type === undefined ? [] : ["content-type", type],
    body: encoding === "form" ? toForm(wrapped) : wrapped,
  };
}

type Condition = Exclude<OperationConfig, { method: "POST" | "PUT"; query?: never }>;

/** The URL with the version that must still be the record's, where a query parameter carries it. */
export function conditionalPath(path: string, operation: Condition, version: string | undefined): string {
  if (!("query" in operation) || operation.query === undefined || version === undefined) return path;
  const url = new URL(path, "http://upstream");
  url.searchParams.set(operation.query, version);
  return url.pathname + url.search;
}

/** The body with the version that must still be the record's, where a field carries it. */
export function withVersion<Text extends string | undefined>(
  body: Text,
  { version: held }: EntityConfig,
  operation: Condition,
  version: string | undefined,
): Text | string {
  if (!("field" in operation) || operation.field === undefined || version === undefined) return body;
  const isNumber = held !== undefined && "pointer" in held && held.number === true;
  return withValueAt(body ?? "{}", operation.field, isNumber ? version : JSON.stringify(version));
}
