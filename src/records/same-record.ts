import { canonicalJson } from "../platform/canonical-json.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { mergePatch, pointerKeys } from "../platform/json-text.ts";

/** A record that differs only in when it was changed is the same: our own change often comes back like that. */
export function isSameRecord(stored: string, found: string, { list }: EntityConfig): boolean {
  if (stored === found || canonicalJson(stored) === canonicalJson(found)) return true;
  if (list?.updatedAt === undefined) return false;
  const without = pointerKeys(list.updatedAt).reduceRight(
    (inner, key) => `{${JSON.stringify(key)}:${inner}}`,
    "null",
  );
  return canonicalJson(mergePatch(stored, without)) === canonicalJson(mergePatch(found, without));
}
