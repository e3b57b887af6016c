import type { Path, Report } from "./report.ts";
import type { EntityConfig } from "./entity-schema.ts";
import type { OperationConfig } from "./operation-schema.ts";
import { expanded, isPointer, itemTemplate, namesIn } from "./url-template.ts";

const operations = ["create", "update", "delete"] as const;

/** What the schema can't say about an entity's URLs, bodies and pages. */
export function checkRest(entity: EntityConfig, path: Path, report: Report, hasEvents: boolean): void {
  if (report.sound(path, "path", "item", ...operations, "list")) checkUrls(entity, path, report, hasEvents);
  for (const operation of operations)
    if (report.sound(path, operation)) checkOperation(entity[operation], [...path, operation], report);
  if (report.sound(path, "list")) checkPages(entity, [...path, "list"], report);
  if ("found" in entity && !("lookup" in entity))
    report.problem([...path, "found"], "says how `lookup` is answered, and there is none");
}

function checkUrls(entity: EntityConfig, path: Path, report: Report, hasEvents: boolean): void {
  const item = itemTemplate(entity);
  if (!namesIn(item).includes("id") || namesIn(item).includes("item"))
    report.problem([...path, "item"], "needs {id}, and can't have {item} in it");
  const places = namesIn(item).filter(isPointer);
  checkTemplates(entity, places, path, report);
  checkBelowOthers(entity, { places, hasEvents }, path, report);
}

/** Which values are known where: all of a record that is created, the place of one that exists. */
function checkTemplates(entity: EntityConfig, places: string[], path: Path, report: Report): void {
  const item = itemTemplate(entity);
  for (const operation of operations) {
    const { path: template } = entity[operation];
    if (template === undefined) continue;
    const names = namesIn(expanded(template, { path: entity.path, item }));
    const isPost = operation === "create" && entity.create.method === "POST";
    if (isPost && names.includes("id"))
      report.problem([...path, operation, "path"], "a record that is created by POST has no {id} yet");
    const unknown =
      operation === "create" ? [] : names.filter((name) => isPointer(name) && !places.includes(name));
    for (const name of unknown)
      report.problem(
        [...path, operation, "path"],
        `{${name}} is not part of where the record is, so it is not known`,
      );
  }
}

/** A record below others is found by an ID that says where it is. Who does not know that can't name it. */
function checkBelowOthers(
  entity: EntityConfig,
  { places, hasEvents }: { places: string[]; hasEvents: boolean },
  path: Path,
  report: Report,
): void {
  const { create, list, lookup } = entity;
  const isIn = (template: string): boolean =>
    namesIn(expanded(template, { path: entity.path })).some(isPointer);
  if (list && isIn(list.path ?? "{path}"))
    report.problem(
      [...path, "list"],
      "records can't be listed below one other after the other: `list.path` has to name a list of all of them",
    );
  if (list?.path !== undefined && /\{(item|id)\}/.test(list.path))
    report.problem([...path, "list", "path"], "is no record's: it can't have {item} or {id} in it");
  if (lookup !== undefined && isIn(lookup))
    report.problem(
      [...path, "lookup"],
      "can't begin with a {path} that a record says: name a search of all of them",
    );
  if (places.length === 0) return;
  if (create.enabled && (create.class === "client-id" || create.method === "PUT"))
    report.problem(
      [...path, "create"],
      `a record that is found by ${places.map((name) => `{${name}}`).join(", ")} can't have an ID that we choose`,
    );
  if (hasEvents)
    report.warning(
      path,
      "events name records by an ID that does not say where they are: these records are not read",
    );
}

function checkOperation(operation: OperationConfig, path: Path, report: Report): void {
  const conditions = (["header", "query", "field"] as const).filter((key) => key in operation);
  for (const key of conditions)
    if (key !== "header" && operation.class !== "conditional")
      report.problem([...path, key], `is for class conditional, and this is ${operation.class}`);
  if (conditions.length > 1 && operation.class === "conditional")
    report.problem(
      [...path, conditions[1]!],
      `the version goes into one place, and that is \`${conditions[0]}\` already`,
    );
  if (operation.method === "DELETE")
    for (const key of ["body", "field", "contentType"] as const)
      if (key in operation) report.problem([...path, key], "a DELETE has no body; use method POST or PATCH");
}

function checkPages({ list }: EntityConfig, path: Path, report: Report): void {
  if (list === undefined) return;
  const [first, second] = (["page", "offset", "cursor", "next"] as const).filter((key) => key in list);
  if (second !== undefined) report.problem([...path, second], `pages are asked for by \`${first}\` already`);
  if ("firstPage" in list && !("page" in list))
    report.problem([...path, "firstPage"], "is for `page`, and there is none");
  if ("pageSize" in list && !("size" in list))
    report.problem([...path, "pageSize"], "needs `size`: the parameter that carries it");
}
