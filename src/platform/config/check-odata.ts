import type { Path, Report } from "./report.ts";
import type { EntityConfig } from "./entity-schema.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

/** What another kind says of its own way, and OData has in the protocol. */
const ofRest: Readonly<Record<string, readonly string[]>> = {
  "": ["item", "lookup", "found", "encoding", "envelope"],
  create: ["contentType", "path", "answer"],
  update: ["sends", "contentType", "path", "query", "field", "answer"],
  delete: ["body", "contentType", "path", "query", "field"],
  list: ["path", "page", "firstPage", "offset", "cursor", "next", "size", "items", "record"],
  version: ["number"],
};

const instead: Readonly<Record<string, string>> = {
  lookup: "odata filters by `reference`",
  item: "odata writes the key behind `path`",
};

/** A key that is written in the wrong way names nothing, or another record; so nobody guesses. */
export function checkOData(entity: EntityConfig, path: Path, report: Report): void {
  if (!report.given([...path, "keyType"])) report.problem(path, "needs `keyType` for kind odata");
  if (report.sound(path, "path") && /[{}]/.test(entity.path))
    report.problem([...path, "path"], "can't have {placeholders} for kind odata: it is one entity set");
  for (const [holder, keys] of Object.entries(ofRest))
    for (const key of keys) {
      const at = holder === "" ? [...path, key] : [...path, holder, key];
      if (report.given(at))
        report.problem(at, `is for kind rest: ${instead[key] ?? "odata has its own way"}`);
    }
  const since = report.sound(path, "list") ? entity.list?.since : undefined;
  if (since !== undefined && !/^[\w/]+$/.test(since))
    report.problem([...path, "list", "since"], "must be a property for kind odata, e.g. ModifiedAt");
  checkMethods(entity, path, report);
  checkChosenKeys(entity, path, report);
}

/** The key that we choose for a record is the UUID that its client has chosen. */
function checkChosenKeys({ create, keyType }: EntityConfig, path: Path, report: Report): void {
  if (!report.sound(path, "create", "keyType") || !create.enabled || keyType !== "number") return;
  if (create.class === "client-id" || create.method === "PUT")
    report.warning(
      [...path, "create"],
      "temp IDs are no number keys: creates are parked unless the app chooses numbers itself",
    );
}

function checkMethods({ update, delete: remove }: EntityConfig, path: Path, report: Report): void {
  if (report.sound(path, "update") && update.method === "POST")
    report.problem([...path, "update", "method"], "is for kind rest: odata changes by PATCH or PUT");
  if (report.sound(path, "delete") && remove.method !== "DELETE")
    report.problem([...path, "delete", "method"], "is for kind rest: odata deletes by DELETE");
}

/** What only OData has. */
export function checkNoOData(path: Path, report: Report): void {
  for (const at of [
    [...path, "keyType"],
    [...path, "list", "changes"],
  ])
    if (report.given(at)) report.problem(at, "is for kind odata");
}

const ownHeaders = new Set(["accept", "content-type", "prefer", "odata-version", "odata-maxversion"]);

/** The protocol's own headers are the connector's: another value would not be sent. */
export function checkODataHeaders({ headers = {} }: UpstreamConfig, path: Path, report: Report): void {
  for (const name of Object.keys(headers))
    if (ownHeaders.has(name.toLowerCase()))
      report.problem([...path, name], "is set by the connector for kind odata");
}
