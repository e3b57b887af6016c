import { hash } from "node:crypto";

import { canonicalReader, type CanonicalObject } from "../platform/canonical-json.ts";
import { slicesAt } from "../platform/json-text.ts";

/** What makes a mutation the same one when its id comes again: not its place in the outbox, not its clock. */
const parts = new Set(["base", "baseVersion", "data", "dependsOn", "entity", "op", "recordId", "schema"]);

/** 128 bits, in hex. */
const fingerprintLength = 32;

/**
 * Reads mutations that stand in one text, from front to back: gives the content of the one that begins at an offset, equal
 * for two texts when they mean the same. Members that are null count as absent.
 *
 * @param depthMax a mutation that is nested more deeply has no content here; then `sentContent` serves.
 */
export function contentReader(text: string, depthMax: number): (start: number) => CanonicalObject {
  return canonicalReader(text, { keep: parts, depthMax });
}

/** The content of a mutation of any depth, with its white space and spelling. */
export function sentContent(text: string): string {
  const content: string[] = [];
  for (const { key, start, end } of slicesAt(text)) {
    const member = text.slice(start, end);
    if (parts.has(key) && member !== "null") content.push(`${JSON.stringify(key)}:${member}`);
  }
  return content.toSorted().join(",");
}

/** The keyed hashes of a mutation's content, in hex, one for each secret. */
export function fingerprints(secrets: readonly string[], content: string): string[] {
  // A key in front is a sound one here: half of the hash is kept, so that nobody can compute on from it.
  return secrets.map((secret) => hash("sha256", `${secret}\0${content}`, "hex").slice(0, fingerprintLength));
}
