import { hash } from "node:crypto";

/** Remembers what verified tokens said, so that the same token is not verified again for each request. */
export interface VerifiedTokens<Value> {
  get(token: string): Value | undefined;
  set(token: string, value: Value, expiresAtMs: number): void;
}

/**
 * Entries are kept under the token's SHA-256, so a memory dump holds no tokens; never beyond `expiresAtMs` and never
 * longer than `maxAgeMs`, so that a withdrawn key stops counting.
 *
 * Two generations instead of an order of use: when the younger one is full, the older one goes, and what is still used
 * moves over. A hit costs a hash and a look-up, and nothing has to be searched for the entry to drop.
 */
export function rememberVerifiedTokens<Value>({
  entriesMax = 10_000,
  maxAgeMs = 60_000,
} = {}): VerifiedTokens<Value> {
  interface Entry {
    value: Value;
    untilMs: number;
  }
  let younger = new Map<string, Entry>();
  let older = new Map<string, Entry>();

  function keep(key: string, entry: Entry): void {
    if (younger.size >= entriesMax / 2) {
      older = younger;
      younger = new Map();
    }
    younger.set(key, entry);
  }

  return {
    get(token) {
      const key = hash("sha256", token, "base64");
      const entry = younger.get(key) ?? older.get(key);
      if (entry === undefined || entry.untilMs <= Date.now()) return undefined;
      if (!younger.has(key)) keep(key, entry);
      return entry.value;
    },
    set(token, value, expiresAtMs) {
      keep(hash("sha256", token, "base64"), { value, untilMs: Math.min(expiresAtMs, Date.now() + maxAgeMs) });
    },
  };
}
