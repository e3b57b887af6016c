import { resolve, dirname } from "node:path";

import type { Abilities, ConnectorModule } from "../../connector-module.ts";
import { didYouMean } from "./did-you-mean.ts";
import { loadModule } from "./load-module.ts";
import { abilitiesOf, faultIn, moduleIn } from "./module-shape.ts";
import type { Path, Report } from "./report.ts";
import type { EntityConfig } from "./entity-schema.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

const operations = ["create", "update", "delete"] as const;

/** What is the connector's own knowledge where that is a module, and configuration where it is `kind`. */
const ofKinds = [
  "path",
  "item",
  "id",
  "keyType",
  "version",
  "reference",
  "lookup",
  "found",
  "list",
  "encoding",
  "envelope",
] as const;

/**
 * Loads the upstream's module, and puts what it says of its entities where the configuration of another kind says it.
 * Gives whether that worked: if not, there is nothing to say about the entities.
 */
export function applyModule(upstream: UpstreamConfig, path: Path, report: Report, file: string): boolean {
  if (!report.sound(path, "module", "settings", "entities")) return false;
  const refuse = (message: string): false => {
    report.problem([...path, "module"], report.withoutSecrets(message));
    return false;
  };
  const loaded = loadModule(resolve(dirname(file), upstream.module ?? ""));
  if ("reason" in loaded) return refuse(loaded.reason);
  const found = moduleIn(loaded.exports);
  if (!found) return refuse("must export a connector: `export default { entities, open }`");
  try {
    if (!checkSettings(found, upstream, path, report)) return false;
    return applyEntities(abilitiesOf(found, upstream.settings ?? {}), upstream, path, report);
  } catch (error) {
    return refuse(
      `can't be used (${error instanceof Error ? `${error.name}: ${error.message}` : "no Error"})`,
    );
  }
}

function checkSettings(
  module: ConnectorModule,
  { settings = {} }: UpstreamConfig,
  path: Path,
  report: Report,
): boolean {
  const problems = [...(module.check?.(settings) ?? [])];
  for (const { at, message } of problems)
    report.problem([...path, "settings", ...at], report.withoutSecrets(message));
  return problems.length === 0;
}

function applyEntities(
  all: Record<string, unknown>,
  { entities }: UpstreamConfig,
  path: Path,
  report: Report,
): boolean {
  let isWhole = true;
  for (const [name, entity] of Object.entries(entities)) {
    const at = [...path, "entities", name];
    const abilities = Object.hasOwn(all, name) ? all[name] : undefined;
    const fault = abilities === undefined ? undefined : faultIn(abilities);
    if (abilities === undefined)
      report.problem(at, `the module has no such entity${didYouMean(name, Object.keys(all))}`);
    else if (fault !== undefined) report.problem([...path, "module"], `of its entity \`${name}\`: ${fault}`);
    else applyAbilities(abilities as Abilities, entity, at, report);
    isWhole &&= abilities !== undefined && fault === undefined;
  }
  return isWhole;
}

function applyAbilities(abilities: Abilities, entity: EntityConfig, path: Path, report: Report): void {
  for (const key of ofKinds)
    if (report.given([...path, key])) report.problem([...path, key], "is for `kind`: the module knows that");
  for (const operation of operations) applyOperation(operation, abilities, entity, path, report);
  const { create, update, reference, lookup, list } = abilities;
  // What the engine asks of a method is whether we choose the ID, and may thereby write over a record.
  entity.create.method = create?.choosesId && create.class !== "client-id" ? "PUT" : "POST";
  entity.update.sends = update?.sends ?? "change";
  if (reference !== undefined) entity.reference = reference;
  if (lookup) entity.lookup = "{tempId}";
  if (list) {
    const { since = false, updatedAt } = list === true ? {} : list;
    entity.list = { ...(since && { since: "since" }), ...(updatedAt !== undefined && { updatedAt }) };
  }
}

function applyOperation(
  operation: (typeof operations)[number],
  abilities: Abilities,
  { [operation]: configured }: EntityConfig,
  entityPath: Path,
  report: Report,
): void {
  const path = [...entityPath, operation];
  const can = abilities[operation];
  for (const key of Object.keys(configured) as (keyof typeof configured)[])
    if (key !== "enabled" && key !== "class" && report.given([...path, key])) {
      report.problem([...path, key], "is for `kind`: the module knows that");
      delete configured[key];
    }
  if (!can) {
    if (configured.enabled && report.given([...path, "enabled"]))
      report.problem([...path, "enabled"], "the module can't do that");
    configured.enabled = false;
    return;
  }
  if (!report.given([...path, "class"])) configured.class = can.class;
  else if (configured.class !== "opaque" && configured.class !== can.class)
    report.problem(
      [...path, "class"],
      `the module says ${can.class}; the only other one here is opaque, which takes that back`,
    );
  if (can.keyTtlMs !== undefined && configured.class === "idempotency-key")
    configured.keyTtlMs = can.keyTtlMs;
}
