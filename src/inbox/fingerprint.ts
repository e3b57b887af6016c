import { createHmac } from "node:crypto";

import { canonicalJson, slicesAt } from "../platform/json-text.ts";

/** What makes a mutation the same one when its id comes again: not its place in the outbox, not its clock. */
const parts = new Set(["entity", "op", "recordId", "baseVersion", "base", "dependsOn", "schema", "data"]);

/**
 * The keyed hashes of a mutation's content, one for each secret: equal for two texts when they mean the same. Members
 * that are null count as absent.
 *
 * @param text the mutation as it stands in the batch.
 * @param spelling `as-sent` makes white space and spelling count too: for text that may be nested too deeply, or be too
 * long, to be brought into one form.
 */
export function fingerprints(
  secrets: readonly string[],
  text: string,
  spelling: "canonical" | "as-sent" = "canonical",
): Buffer[] {
  const members: string[] = [];
  for (const { key, start, end } of slicesAt(text)) {
    const value = text.slice(start, end);
    if (!parts.has(key) || value === "null") continue;
    members.push(`${key}:${spelling === "canonical" ? canonicalJson(value) : value}`);
  }
  const content = members.toSorted().join("\n");
  return secrets.map((secret) => createHmac("sha256", secret).update(content).digest().subarray(0, 16));
}
