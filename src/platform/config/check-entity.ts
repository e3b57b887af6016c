import { checkNoOData, checkOData } from "./check-odata.ts";
import { checkRest } from "./check-rest.ts";
import { didYouMean } from "./did-you-mean.ts";
import { checkJsonata } from "./check-jsonata.ts";
import { checkVersions } from "./check-versions.ts";
import type { Path, Report } from "./report.ts";
import type { EntityConfig } from "./entity-schema.ts";
import type { OperationConfig } from "./operation-schema.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

interface EntityAt {
  path: Path;
  /** All entities of the upstream, which references may name. */
  entityNames: string[];
  upstream: Pick<UpstreamConfig, "role" | "poll" | "kind" | "module" | "events">;
  report: Report;
}

const operations = ["create", "update", "delete"] as const;

/** What the schema can't say about an entity. */
export function checkEntity(entity: EntityConfig, at: EntityAt): void {
  if (at.upstream.module === undefined)
    for (const key of ["path", "id"] as const)
      if (!(key in entity)) at.report.problem([...at.path, key], "is missing");
  for (const operation of operations)
    if (at.report.sound(at.path, operation)) {
      checkNeeds(entity, operation, at);
      checkUnusedKeys(entity[operation], [...at.path, operation], at.report);
    }
  if ("lookup" in entity && !("reference" in entity))
    at.report.problem(
      [...at.path, "lookup"],
      "needs `reference`: an answer counts only if it carries our reference",
    );
  if (at.upstream.kind === "rest" && "path" in entity)
    checkRest(entity, at.path, at.report, at.upstream.events !== undefined);
  checkReferences(entity, at);
  checkVersions(entity, at);
  if (at.upstream.kind === "odata") checkOData(entity, at.path, at.report);
  else if (at.upstream.module === undefined) checkNoOData(at.path, at.report);
  for (const key of ["toUpstream", "fromUpstream"] as const)
    if (at.report.sound(at.path, key)) checkJsonata(entity[key], [...at.path, key], at.report);
  checkSupported(entity, at);
}

/** An operation that is not enabled makes no calls, so it needs nothing. */
function checkNeeds(
  entity: EntityConfig,
  operation: (typeof operations)[number],
  { path, report, upstream: { kind, module } }: EntityAt,
): void {
  const { class: operationClass, enabled } = entity[operation];
  if (!enabled) return;
  const needs: ("lookup" | "reference" | "version")[] = [];
  const has = kind === "odata" ? ["lookup", "version"] : module === undefined ? [] : ["version"];
  if (operation === "create" && operationClass === "lookup") needs.push("lookup", "reference");
  if (operation !== "create" && operationClass === "conditional") needs.push("version");
  for (const key of needs.filter((each) => !(each in entity) && !has.includes(each)))
    report.problem([...path, operation, "class"], `class ${operationClass} needs the entity's \`${key}\``);
}

function checkUnusedKeys(operation: OperationConfig, path: Path, report: Report): void {
  const { class: operationClass } = operation;
  if ("keyTtlMs" in operation && operationClass !== "idempotency-key")
    report.problem([...path, "keyTtlMs"], `is for class idempotency-key, and this is ${operationClass}`);
  if ("header" in operation && operationClass !== "idempotency-key" && operationClass !== "conditional")
    report.problem(
      [...path, "header"],
      `is for class idempotency-key or conditional, and this is ${operationClass}`,
    );
}

/** A temp ID is resolved whatever it names; only the translation of server IDs needs the entity. */
function checkReferences({ references }: EntityConfig, { path, entityNames, report }: EntityAt): void {
  if (!report.sound(path, "references")) return;
  for (const [pointer, entityName] of Object.entries(references ?? {}))
    if (!entityNames.includes(entityName))
      report.warning(
        [...path, "references", pointer],
        `the upstream has no such entity${didYouMean(entityName, entityNames)}`,
      );
}

function checkSupported(entity: EntityConfig, { path, upstream: { role, poll }, report }: EntityAt): void {
  const pairs = role === "shadow" && "match" in entity;
  if (pairs && !("list" in entity))
    report.problem([...path, "match"], "needs `list`: what the shadow held before has to be listed");
  if (report.sound(path, "conflict") && role === "shadow" && entity.conflict !== "reject")
    report.warning([...path, "conflict"], "is for the primary: a shadow gets what the primary took");
  if (!pairs && "match" in entity)
    report.warning([...path, "match"], "pairs records in a shadow only, and this is not one");
  if (report.given([...path, "list"]) && !pairs && !(role === "primary" && poll))
    report.warning(
      [...path, "list"],
      "is used by `poll` of the primary and by `match` of a shadow, and there is none",
    );
  if ("reconcile" in entity) report.warning([...path, "reconcile"], "this version does not act on it yet");
}
