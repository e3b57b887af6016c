import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { pointerKeys } from "../../platform/json-text.ts";
import { stringLiteral } from "./keys.ts";

type Root = Pick<UpstreamConfig, "baseUrl">;

/** The path of the entity set. */
export function setOf({ baseUrl }: Root, { path }: EntityConfig): string {
  return new URL(baseUrl).pathname.replace(/\/+$/, "") + encodeURI(path);
}

/** The search for our reference; undefined where records hold none. */
export function filterOfReference(root: Root, entity: EntityConfig, tempId: string): string | undefined {
  if (entity.reference === undefined) return undefined;
  return filtered(root, entity, `${pointerKeys(entity.reference).join("/")} eq ${stringLiteral(tempId)}`);
}

/** The list's first page, of everything or of what has changed since. */
export function firstPage(root: Root, entity: EntityConfig, since: Date | undefined): string {
  const property = entity.list?.since;
  if (property === undefined || !since) return setOf(root, entity);
  return filtered(root, entity, `${property} ge ${since.toISOString()}`);
}

function filtered(root: Root, entity: EntityConfig, filter: string): string {
  return `${setOf(root, entity)}?$filter=${encodeURIComponent(filter)}`;
}
