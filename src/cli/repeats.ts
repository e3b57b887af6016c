import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { Looked } from "./shown.ts";

const operations = ["create", "update", "delete"] as const;

/** Where a lost reply leaves a question that nobody but a person can answer, a line for each entity. */
export function unsafeRepeats({ tenants }: Looked): string[] {
  return Object.entries(tenants).flatMap(([tenant, { upstreams }]) =>
    Object.entries(upstreams).flatMap(([upstream, { entities }]) =>
      Object.entries(entities).flatMap(([entity, config]) =>
        [unrecognised(config), unnamed(config)]
          .filter((line) => line !== undefined)
          .map((line) => `${tenant}/${upstream}/${entity}: ${line}`),
      ),
    ),
  );
}

function unrecognised(config: EntityConfig): string | undefined {
  const unsafe = operations.filter(
    (operation) => config[operation].enabled && config[operation].class === "opaque",
  );
  if (unsafe.length === 0) return undefined;
  return (
    `A LOST REPLY TO A CALL (${unsafe.join(", ")}) CAN'T BE RESOLVED, since its class is opaque: the mutation is parked until ` +
    "a person has looked, and the upstream's calls pause. Name a class if the upstream can do more; docs/connectors.md " +
    "has them by kind of API"
  );
}

function unnamed({ create, reference }: EntityConfig): string | undefined {
  const isByKey = create.enabled && create.class === "upsert" && create.method === "POST";
  if (!isByKey || reference !== undefined) return undefined;
  return (
    "A REPEATED CREATE MAY MAKE A SECOND RECORD: class upsert by POST, and no `reference` to recognise the first one by. " +
    "It is safe only if the data holds a key of its own that the upstream keeps unique"
  );
}
