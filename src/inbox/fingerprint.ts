import { hash } from "node:crypto";

import { canonicalJson, isKeptByParsing, slicesAt, withSortedKeys } from "../platform/json-text.ts";

/** What makes a mutation the same one when its id comes again: not its place in the outbox, not its clock. */
const parts = ["base", "baseVersion", "data", "dependsOn", "entity", "op", "recordId", "schema"] as const;
const isPart = new Set<string>(parts);

/** 128 bits, in hex. */
const fingerprintLength = 32;

/**
 * The keyed hashes of a mutation's content, in hex, one for each secret: equal for two texts when they mean the same.
 * Members that are null count as absent.
 *
 * @param text the mutation as it stands in the batch; `value` is the same, parsed.
 * @param spelling `as-sent` makes white space and spelling count too: for text that may be nested too deeply, or be too
 * long, to be brought into one form.
 */
export function fingerprints(
  secrets: readonly string[],
  text: string,
  value: object,
  spelling: "canonical" | "as-sent" = "canonical",
): string[] {
  const content = spelling === "as-sent" ? sentContent(text) : canonicalContent(text, value);
  // A key in front is a sound one here: half of the hash is kept, so that nobody can compute on from it.
  return secrets.map((secret) => hash("sha256", `${secret}\0${content}`, "hex").slice(0, fingerprintLength));
}

function canonicalContent(text: string, value: object): string {
  if (!isKeptByParsing(value, text)) return canonicalJson(`{${sentContent(text)}}`);
  const members = value as Partial<Record<(typeof parts)[number], unknown>>;
  const content: Record<string, unknown> = {};
  for (const part of parts) {
    const member = members[part];
    if (member !== undefined && member !== null) content[part] = withSortedKeys(member);
  }
  return JSON.stringify(content);
}

function sentContent(text: string): string {
  const content: string[] = [];
  for (const { key, start, end } of slicesAt(text)) {
    const member = text.slice(start, end);
    if (isPart.has(key) && member !== "null") content.push(`${JSON.stringify(key)}:${member}`);
  }
  return content.toSorted().join(",");
}
