import { createHmac } from "node:crypto";

import { canonicalJson, slicesAt } from "../platform/json-text.ts";

/** What makes a mutation the same one when its id comes again: not its place in the outbox, not its clock. */
const parts = new Set(["entity", "op", "recordId", "baseVersion", "base", "dependsOn", "schema", "data"]);

/**
 * The keyed hash of a mutation's content: equal for two texts exactly when they mean the same. Members that are null
 * count as absent.
 *
 * @param text the mutation as it stands in the batch.
 */
export function fingerprint(secret: string, text: string): Buffer {
  const members: string[] = [];
  for (const { key, start, end } of slicesAt(text)) {
    if (!parts.has(key)) continue;
    const value = text.slice(start, end);
    if (value !== "null") members.push(`${key}:${canonicalJson(value)}`);
  }
  return createHmac("sha256", secret).update(members.toSorted().join("\n")).digest().subarray(0, 16);
}
