import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { expanded, isPointer, itemTemplate, namesIn } from "../../platform/config/url-template.ts";
import { textAt } from "../../platform/json-text.ts";
import { UpstreamError } from "../connector.ts";
import { toText } from "./text.ts";

/**
 * Where an entity's records are, as paths below the upstream's origin. Every value put in is percent-encoded.
 *
 * What a record's place is made of is its ID: where that takes values of the record besides (`/projects/{/projectId}/…`),
 * its ID here is these and the upstream's own, in the place's order, each percent-encoded, with `/` between. So a record
 * can be found by its ID alone, and two records that the upstream numbers alike in two places are two.
 *
 * @throws {UpstreamError} `not-sent`, parked, from each function for a value that no path can carry (empty, `.`, `..`),
 * or that the record does not have.
 */
export interface EntityUrls {
  /** Where a record is created; `id` is the one that we choose. */
  creation(body: string, id: string | undefined): string;
  item(id: string): string;
  change(id: string): string;
  removal(id: string): string;
  /** Where the list is. */
  list: string;
  /** The search for `tempId`; undefined when the entity has none. */
  search(tempId: string): string | undefined;
  /** The record's ID here, from the upstream's own and a body that tells what else its place is made of. */
  idOf(own: string, body: string): string;
  /** The upstream's own ID of the record that is at this URL; undefined when it is the place of no record. */
  ownIdAt(location: string): string | undefined;
  /** @throws {UpstreamError} when the body would move the record to another place than the one that its ID says. */
  refuseMove(id: string, body: string): void;
}

export function urlsOf(baseUrl: string, entity: EntityConfig): EntityUrls {
  const base = new URL(baseUrl);
  const prefix = base.pathname.replace(/\/+$/, "");
  const below = (pathAndQuery: string): string => {
    const { pathname, search } = new URL(prefix + pathAndQuery, base.origin);
    return pathname + search;
  };
  const { path, create, update, delete: removal, list, lookup } = entity;
  const item = itemTemplate(entity);
  const pointers = namesIn(item).filter(isPointer);
  const written = (template: string): string => expanded(template, { path, item });
  const at = (template: string, values: ReadonlyMap<string, string>): string =>
    below(filled(written(template), values));

  const byId = (id: string): Map<string, string> => {
    const parts = pointers.length === 0 ? [id] : partsOf(id, pointers.length + 1);
    return new Map([...pointers, "id"].map((name, index) => [name, parts[index]!]));
  };

  return {
    creation(body, id) {
      const template = written(create.path ?? (create.method === "PUT" ? "{item}" : "{path}"));
      return at(template, byBody(body, namesIn(template).filter(isPointer)).set("id", id ?? ""));
    },
    item: (id) => at(item, byId(id)),
    change: (id) => at(update.path ?? item, byId(id)),
    removal: (id) => at(removal.path ?? item, byId(id)),
    list: below(encodeBraces(written(list?.path ?? "{path}"))),
    search: (tempId) => (lookup === undefined ? undefined : below(searched(lookup, path, tempId))),
    idOf(own, body) {
      if (pointers.length === 0) return own;
      return [...byBody(body, pointers).values(), own].map((part) => encodeURIComponent(part)).join("/");
    },
    ownIdAt: (location) => ownIdAt(location, item),
    refuseMove(id, body) {
      const place = byId(id);
      for (const pointer of pointers) {
        const value = textAt(body, pointer);
        if (value !== undefined && toText(value) !== place.get(pointer))
          throw unplaceable(`a change of ${pointer} would move the record to another URL`);
      }
    },
  };
}

/** A list of what lies below records can't be asked for; the configuration's check refuses it. */
function encodeBraces(template: string): string {
  return template.replaceAll("{", "%7B").replaceAll("}", "%7D");
}

/** Every other brace is the search's own: `?where={"externalRef":"{tempId}"}`. */
function searched(lookup: string, path: string, tempId: string): string {
  const pieces = lookup.split("{tempId}").map((piece) => encodeBraces(expanded(piece, { path })));
  return pieces.join(encoded(tempId));
}

function filled(template: string, values: ReadonlyMap<string, string>): string {
  return template.replace(/\{([^{}]*)\}/g, (_whole, name: string) => encoded(values.get(name) ?? ""));
}

function encoded(value: string): string {
  // A dot segment would be resolved away on the way, and the call would reach another resource.
  if (value === "" || value === "." || value === ".." || !value.isWellFormed())
    throw unplaceable("the record's ID can't stand in a path");
  return encodeURIComponent(value);
}

function byBody(body: string, names: readonly string[]): Map<string, string> {
  return new Map(names.map((pointer) => [pointer, valueIn(body, pointer)]));
}

function partsOf(id: string, count: number): string[] {
  const parts = id.split("/");
  if (parts.length !== count) throw unplaceable("the record's ID does not say where it is");
  try {
    return parts.map((part) => decodeURIComponent(part));
  } catch {
    throw unplaceable("the record's ID does not say where it is");
  }
}

function valueIn(body: string, pointer: string): string {
  const token = textAt(body, pointer);
  const value = token === undefined ? undefined : toText(token);
  if (value === undefined) throw unplaceable(`the record's place needs a text or a number at ${pointer}`);
  return value;
}

/** By the end of the path alone, from the segment before the ID on: behind proxies the rest of it differs. */
function ownIdAt(location: string, item: string): string | undefined {
  if (!URL.canParse(location, "http://upstream")) return undefined;
  const segments = item.split("?")[0]!.split(/\/(?![^{]*\})/);
  const index = segments.findIndex((segment) => segment.includes("{id}"));
  if (index === -1) return undefined;
  const pattern = segments
    .slice(Math.max(index - 1, 0))
    .map(patternOf)
    .join("/");
  const found = new RegExp(`(?:^|/)${pattern}/?$`).exec(new URL(location, "http://upstream").pathname)?.[1];
  try {
    return found === undefined ? undefined : decodeURIComponent(found);
  } catch {
    return undefined;
  }
}

function patternOf(segment: string): string {
  return segment.replace(/\{([^{}]*)\}|[^{}]+/g, (piece, name: string | undefined) => {
    if (name === "id") return "([^/]+)";
    return name === undefined ? escaped(new URL(piece, "http://upstream/").pathname.slice(1)) : "[^/]+";
  });
}

function escaped(literal: string): string {
  return literal.replace(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);
}

function unplaceable(message: string): UpstreamError {
  return new UpstreamError(message, { certainty: "not-sent", disposition: "park" });
}
