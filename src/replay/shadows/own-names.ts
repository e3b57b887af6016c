import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { slicesAt, spanAt, textAt, withValueAt } from "../../platform/json-text.ts";
import { tempUuid } from "../../platform/uuid.ts";
import { recordKey, type RecordKey } from "../../records/record.ts";
import { recordsIn, referencesIn, substitute } from "../references.ts";

/** Which fields refer to other records: those that the shadow declares, or else the primary. */
export type Referring = Pick<EntityConfig, "references">;

/** The temp IDs that the texts refer to. */
export function tempIdsIn(texts: (string | undefined)[], referring: EntityConfig): string[] {
  return [...new Set(texts.flatMap((text) => referencesIn(text, referring)))];
}

/** The records that the texts name by server IDs. */
export function recordsNamedIn(texts: (string | undefined)[], referring: EntityConfig): RecordKey[] {
  return texts.flatMap((text) => recordsIn(text, referring));
}

export interface Names {
  /** Of temp IDs, the records that they name. */
  records: ReadonlyMap<string, RecordKey>;
  /** Of records, by `recordKey`, what the shadow calls them. */
  ownIds: ReadonlyMap<string, string>;
}

/** The text with every reference to a record that the shadow has replaced by the shadow's own ID. */
export function withOwnNames(text: string, referring: EntityConfig, { records, ownIds }: Names): string {
  // Server IDs first: what then stands in a field may look like one.
  let named = text;
  for (const [pointer, entity] of Object.entries(referring.references ?? {})) {
    named = replaceAt(named, pointer, (token) => {
      const serverId = serverIdOf(token);
      const ownId = serverId === undefined ? undefined : ownIds.get(recordKey({ entity, serverId }));
      return ownId === undefined ? token : likeToken(token, ownId);
    });
  }
  const ownByTempId = new Map<string, string>();
  for (const [tempId, key] of records) {
    const ownId = ownIds.get(recordKey(key));
    if (ownId !== undefined) ownByTempId.set(tempId, ownId);
  }
  return substitute(named, referring, ownByTempId);
}

/** The text without the references to these records (by `recordKey`); a list loses those elements. */
export function withoutNames(text: string, referring: EntityConfig, left: ReadonlySet<string>): string {
  let rest = text;
  for (const [pointer, entity] of Object.entries(referring.references ?? {})) {
    const isLeft = (token: string): boolean => {
      const serverId = serverIdOf(token);
      return serverId !== undefined && left.has(recordKey({ entity, serverId }));
    };
    const found = textAt(rest, pointer);
    if (found === undefined) continue;
    if (!found.startsWith("[")) {
      if (isLeft(found)) rest = withValueAt(rest, pointer, "null");
      continue;
    }
    const elements = slicesAt(found).map(({ start, end }) => found.slice(start, end));
    rest = withValueAt(rest, pointer, `[${elements.filter((element) => !isLeft(element)).join(",")}]`);
  }
  return rest;
}

/** The text without what the primary keeps for itself in its records: ID, version and our reference. */
export function withoutOwnFields(text: string, primary: EntityConfig | undefined): string {
  // What a mapping makes of a record is the tenant's business.
  if (!primary || primary.fromUpstream !== "$") return text;
  const { id, version, reference } = primary;
  const own = [id, version && "pointer" in version ? version.pointer : undefined, reference];
  return own.reduce<string>(
    (rest, pointer) =>
      pointer === undefined || textAt(rest, pointer) === undefined ? rest : without(rest, pointer),
    text,
  );
}

/** Removes a member, also where it is null, as in a patch. */
function without(text: string, pointer: string): string {
  return withValueAt(text, pointer, "null");
}

function replaceAt(text: string, pointer: string, replace: (token: string) => string): string {
  const span = spanAt(text, pointer);
  if (!span) return text;
  const found = text.slice(span.start, span.end);
  const replaced = found.startsWith("[")
    ? `[${slicesAt(found)
        .map(({ start, end }) => replace(found.slice(start, end)))
        .join(",")}]`
    : replace(found);
  return text.slice(0, span.start) + replaced + text.slice(span.end);
}

/** A number's digits are taken as they were sent. */
function serverIdOf(token: string): string | undefined {
  if (!token.startsWith('"')) return /^-?\d/.test(token) ? token : undefined;
  const value = JSON.parse(token) as string;
  return tempUuid(value) === undefined ? value : undefined;
}

/** As a number where a number stood, if it is one. */
function likeToken(token: string, ownId: string): string {
  const isNumber = !token.startsWith('"') && /^-?(0|[1-9]\d*)$/.test(ownId);
  return isNumber ? ownId : JSON.stringify(ownId);
}
