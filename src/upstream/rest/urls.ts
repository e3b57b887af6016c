import type { EntityConfig } from "../../platform/config/schema.ts";
import { UpstreamError } from "../connector.ts";

/** Where an entity's records are, as paths below the upstream's origin. Every value put in is percent-encoded. */
export interface EntityUrls {
  collection: string;
  /** @throws {UpstreamError} `not-sent`, parked, for an ID that no path can carry: empty, `.`, `..`. */
  item(id: string): string;
  /** The search for `tempId`; undefined when the entity has none. */
  search(tempId: string): string | undefined;
}

export function urlsOf(baseUrl: string, { path, lookup }: EntityConfig): EntityUrls {
  const base = new URL(baseUrl);
  const prefix = base.pathname.replace(/\/+$/, "");
  const below = (pathAndQuery: string): string => {
    const { pathname, search } = new URL(prefix + pathAndQuery, base.origin);
    return pathname + search;
  };
  const collection = below(path);
  return {
    collection,
    item: (id) => `${collection}/${segmentOf(id)}`,
    search: (tempId) => {
      if (lookup === undefined) return undefined;
      const values: Record<string, string> = { path, tempId: encodeURIComponent(tempId) };
      const filled = lookup.replace(/\{(path|tempId)\}/g, (_all, name: string) => values[name]!);
      return below(filled.startsWith("/") ? filled : `/${filled}`);
    },
  };
}

function segmentOf(id: string): string {
  // A dot segment would be resolved away on the way, and the call would reach another resource.
  if (id === "" || id === "." || id === ".." || !id.isWellFormed()) {
    throw new UpstreamError("the record's ID can't stand in a path", {
      certainty: "not-sent",
      disposition: "park",
    });
  }
  return encodeURIComponent(id);
}
