import { createHmac, timingSafeEqual } from "node:crypto";

import type { EventsConfig } from "../platform/config/upstream-schema.ts";
import { TidegateError } from "../platform/errors.ts";

type Headers = Record<string, string | string[] | undefined>;

/**
 * Makes sure that an event is from somebody who knows the secret, and from these minutes.
 *
 * By default as Standard Webhooks has it (HMAC-SHA256 over `id.timestamp.body`, several signatures in one header), or as
 * configured. What is replayed within the window only has the record read once more.
 *
 * @param body as it was sent, once it was inflated.
 * @throws {TidegateError} `signature-invalid`
 */
export function assertSigned(config: EventsConfig, headers: Headers, body: string, nowMs: number): void {
  const { timestamp, text, given } = config.signature
    ? ownFormat(config.signature, headers, body)
    : standard(headers, body);
  const sentMs = /^\d{1,12}$/.test(timestamp) ? Number(timestamp) * 1_000 : Date.parse(timestamp);
  if (!(Math.abs(nowMs - sentMs) <= config.toleranceMs)) {
    throw refused("Its time is missing, or too far from the gateway's.");
  }
  const isSigned = config.secrets.some((secret) => {
    const expected = createHmac("sha256", keyOf(secret)).update(text).digest();
    return given.some((signature) => isEqual(expected, signature));
  });
  if (!isSigned) throw refused("None of its signatures is right.");
}

interface Signed {
  timestamp: string;
  /** What was signed. */
  text: string;
  given: Buffer[];
}

/** https://www.standardwebhooks.com, of which v1 is HMAC-SHA256. */
function standard(headers: Headers, body: string): Signed {
  const timestamp = one(headers, "webhook-timestamp");
  const given = one(headers, "webhook-signature")
    .split(" ")
    .flatMap((signature) => (signature.startsWith("v1,") ? Buffer.from(signature.slice(3), "base64") : []));
  return { timestamp, text: `${one(headers, "webhook-id")}.${timestamp}.${body}`, given };
}

function ownFormat(
  { header, prefix, encoding, timestampHeader, signed }: NonNullable<EventsConfig["signature"]>,
  headers: Headers,
  body: string,
): Signed {
  const timestamp = one(headers, timestampHeader);
  const value = one(headers, header);
  const given = value.startsWith(prefix) ? [Buffer.from(value.slice(prefix.length), encoding)] : [];
  const parts: Record<string, string> = { timestamp, body };
  const text = signed.replaceAll(/\{(timestamp|body)\}/g, (_all, name: string) => parts[name] ?? "");
  return { timestamp, text, given };
}

function one(headers: Headers, name: string): string {
  const value = headers[name.toLowerCase()];
  return typeof value === "string" ? value : "";
}

/** Standard Webhooks writes secrets as base64 behind `whsec_`. */
function keyOf(secret: string): Buffer {
  const [, base64] = /^whsec_(.*)$/s.exec(secret) ?? [];
  return base64 === undefined ? Buffer.from(secret) : Buffer.from(base64, "base64");
}

function isEqual(expected: Buffer, given: Buffer): boolean {
  return expected.length === given.length && timingSafeEqual(expected, given);
}

function refused(detail: string): TidegateError {
  return new TidegateError("signature-invalid", detail);
}
