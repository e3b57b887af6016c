import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { mapStrings, pointerKeys, slicesAt, textAt } from "../platform/json-text.ts";
import { tempUuid } from "../platform/uuid.ts";
import type { RecordKey } from "../records/record.ts";

/** The temp IDs (bare UUIDs) that the data refers to: in the fields the entity declares, or anywhere if it declares none. */
export function referencesIn(data: string | undefined, config: EntityConfig): string[] {
  if (data === undefined || !mayHaveTempIds(data)) return [];
  const found = new Set<string>();
  const isReference = referenceFields(config);
  mapStrings(data, (value, path) => {
    const uuid = tempUuid(value);
    if (uuid !== undefined && isReference(path)) found.add(uuid);
    return undefined;
  });
  return [...found];
}

/** The data with every reference that has a server ID replaced by it. */
export function substitute(
  data: string,
  config: EntityConfig,
  serverIds: ReadonlyMap<string, string>,
): string {
  if (serverIds.size === 0 || !mayHaveTempIds(data)) return data;
  const isReference = referenceFields(config);
  return mapStrings(data, (value, path) => {
    const uuid = tempUuid(value);
    return uuid !== undefined && isReference(path) ? serverIds.get(uuid) : undefined;
  });
}

/** Most data refers to nothing, and need not be taken apart to see that. */
function mayHaveTempIds(data: string): boolean {
  return data.includes("\\") || /urn:uuid:/i.test(data);
}

/** The records that the data names by server IDs, in the fields the entity declares. */
export function recordsIn(data: string | undefined, { references = {} }: EntityConfig): RecordKey[] {
  if (data === undefined) return [];
  return Object.entries(references).flatMap(([pointer, entity]) => {
    const found = textAt(data, pointer);
    if (found === undefined) return [];
    const values = found.startsWith("[")
      ? slicesAt(found).map(({ start, end }) => found.slice(start, end))
      : [found];
    return values.flatMap((value) => serverIdOf(value) ?? []).map((serverId) => ({ entity, serverId }));
  });
}

/** A number's digits are taken as they were sent. */
function serverIdOf(token: string): string | undefined {
  if (!token.startsWith('"')) return /^-?\d/.test(token) ? token : undefined;
  const value = JSON.parse(token) as string;
  // Nobody's ID has a NUL or half a character, and Postgres takes neither.
  const isId = value.isWellFormed() && !value.includes("\0") && tempUuid(value) === undefined;
  return isId ? value : undefined;
}

function referenceFields({ references }: EntityConfig): (path: readonly string[]) => boolean {
  if (references === undefined) return () => true;
  const declared = Object.keys(references).map(pointerKeys);
  // A declared field may also hold a list of references.
  return (path) =>
    declared.some(
      (keys) =>
        keys.every((key, index) => path[index] === key) &&
        (path.length === keys.length || (path.length === keys.length + 1 && /^\d+$/.test(path.at(-1) ?? ""))),
    );
}
