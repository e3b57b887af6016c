import { hash } from "node:crypto";

/** Remembers what verified tokens said, so that the same token is not verified again for each request. */
export interface VerifiedTokens<Value> {
  get(token: string): Value | undefined;
  set(token: string, value: Value, expiresAtMs: number): void;
}

/**
 * Entries are kept under the token's SHA-256, so a memory dump holds no tokens; never beyond `expiresAtMs` and never
 * longer than `maxAgeMs`, so that a withdrawn key stops counting. When it is full the longest unused go.
 */
export function rememberVerifiedTokens<Value>({
  entriesMax = 10_000,
  maxAgeMs = 60_000,
} = {}): VerifiedTokens<Value> {
  const entries = new Map<string, { value: Value; untilMs: number }>();
  return {
    get(token) {
      const key = hash("sha256", token, "base64");
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      entries.delete(key);
      if (entry.untilMs <= Date.now()) return undefined;
      entries.set(key, entry);
      return entry.value;
    },
    set(token, value, expiresAtMs) {
      entries.set(hash("sha256", token, "base64"), {
        value,
        untilMs: Math.min(expiresAtMs, Date.now() + maxAgeMs),
      });
      const [oldest] = entries.size > entriesMax ? entries.keys() : [];
      if (oldest !== undefined) entries.delete(oldest);
    },
  };
}
