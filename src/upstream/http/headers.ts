import type { OperationConfig } from "../../platform/config/operation-schema.ts";
import type { UpstreamAuth, UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { Call } from "../connector.ts";

const defaults = {
  accept: "application/json",
  // Without it any coding would do.
  "accept-encoding": "identity",
  "user-agent": "tidegate",
  "content-type": "application/json",
};

/** The headers of one upstream's calls, as names and values in turn. */
export interface HeaderSet {
  /**
   * For a call with a body or without one.
   * @param own the call's own headers, as names and values in turn; they count more than the configured ones
   */
  of(call: Call, hasBody: boolean, own?: readonly string[]): string[];
}

/** Every header but those that show who we are. */
export function headersOf({ headers = {}, actorHeader }: UpstreamConfig): HeaderSet {
  const configured = { ...defaults, ...lowerCased(headers) };
  return {
    of: ({ actor, requestId }, hasBody, own = []) => {
      const all = new Map<string, string>(Object.entries(configured));
      if (!hasBody) all.delete("content-type");
      if (actorHeader !== undefined && actor !== undefined)
        all.set(actorHeader.toLowerCase(), headerSafe(actor));
      if (requestId !== undefined) all.set("x-request-id", headerSafe(requestId));
      for (let at = 0; at < own.length; at += 2) all.set(own[at]!.toLowerCase(), own[at + 1]!);
      return [...all].flat();
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
  if ("query" in operation || "field" in operation) return [];
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

/** What shows the upstream who we are, where that is the same for every call. */
export function authHeader(auth: UpstreamAuth | undefined): string[] {
  switch (auth?.type) {
    case "bearer":
      return ["authorization", `Bearer ${auth.token}`];
    case "basic":
      return [
        "authorization",
        `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`,
      ];
    case "apiKey":
      return [auth.header.toLowerCase(), auth.key];
    default:
      return [];
  }
}

function lowerCased(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
