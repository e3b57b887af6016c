import type { OperationConfig, UpstreamAuth, UpstreamConfig } from "../../platform/config/schema.ts";
import { TidegateError } from "../../platform/errors.ts";
import type { Call } from "../connector.ts";

const defaults = { accept: "application/json", "user-agent": "tidegate", "content-type": "application/json" };

/** The headers of one upstream's calls, as names and values in turn. */
export interface HeaderSet {
  /** For a call with a body or without one. */
  of(call: Call, hasBody: boolean): string[];
}

export function headersOf({ headers = {}, auth, actorHeader }: UpstreamConfig): HeaderSet {
  const merged = { ...defaults, ...lowerCased(headers), ...authHeader(auth) };
  const { "content-type": contentType, ...fixed } = merged;
  const withoutBody = Object.entries(fixed).flat();
  const withBody = [...withoutBody, "content-type", contentType];
  return {
    of: ({ actor, requestId }, hasBody) => {
      const all = [...(hasBody ? withBody : withoutBody)];
      if (actorHeader !== undefined && actor !== undefined) all.push(actorHeader, headerSafe(actor));
      if (requestId !== undefined) all.push("x-request-id", headerSafe(requestId));
      return all;
    },
  };
}

/** The header by which an `idempotency-key` upstream recognises a repeated call. */
export function keyHeader(operation: OperationConfig, idempotencyKey: string): string[] {
  if (operation.class !== "idempotency-key") return [];
  return [operation.header ?? "idempotency-key", headerSafe(idempotencyKey)];
}

/** The header that makes a change of a `conditional` upstream conditional. */
export function conditionHeader(operation: OperationConfig, version: string | undefined): string[] {
  if (operation.class !== "conditional" || version === undefined) return [];
  return [operation.header ?? "if-match", version];
}

/** The header that makes a `conditional` create fail where the record exists. */
export function absenceHeader(operation: OperationConfig): string[] {
  return operation.class === "conditional" ? [operation.header ?? "if-none-match", "*"] : [];
}

/** Percent-encodes what a header value can't hold (and `%`), so that it can be decoded without a loss. */
export function headerSafe(value: string): string {
  return value.toWellFormed().replace(/[^\x21-\x24\x26-\x7e]/gu, encodeURIComponent);
}

function authHeader(auth: UpstreamAuth | undefined): Record<string, string> {
  if (auth === undefined) return {};
  switch (auth.type) {
    case "bearer":
      return { authorization: `Bearer ${auth.token}` };
    case "basic":
      return {
        authorization: `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`,
      };
    case "apiKey":
      return { [auth.header.toLowerCase()]: auth.key };
    default:
      throw new TidegateError("config-invalid", `auth of type ${auth.type} is not supported`);
  }
}

function lowerCased(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
