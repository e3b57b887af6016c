import { expect, test } from "vitest";

import { load, minimal, problemsOf } from "../../../test/fixtures/configs.ts";
import { EntityConfig, ListConfig } from "./entity-schema.ts";
import { CreateConfig, DeleteConfig, UpdateConfig, VersionConfig } from "./operation-schema.ts";

const odata = (...lines: string[]): string =>
  [...minimal, ...lines.map((line) => `            ${line}`)].join("\n").replace("kind: rest", "kind: odata");

/** The smallest configuration with this OData upstream. */
function odataUpstream(upstream: object): string {
  const crm = { role: "primary", kind: "odata", baseUrl: "http://erp", ...upstream };
  return [...minimal.slice(0, 8), `      crm: ${JSON.stringify(crm)}`].join("\n");
}

const whole = [
  "keyType: guid",
  "reference: /ExternalRef",
  "create: { class: lookup }",
  "update: { class: conditional }",
];

test("OData needs neither a lookup nor a version: the protocol has both", () => {
  const { config } = load(odata(...whole));
  const { activity } = config.tenants["hlf"]!.upstreams["crm"]!.entities;
  expect(activity).toMatchObject({ keyType: "guid", version: { pointer: "/@odata.etag" } });
});

test("with a reference, an answer that names no record is looked for, as by a configured lookup", () => {
  const { config } = load(odata(...whole));
  const { activity } = config.tenants["hlf"]!.upstreams["crm"]!.entities;
  expect(activity!.lookup).toBe("{path}?$filter=ExternalRef eq '{tempId}'");
});

const isRests = "is for kind rest";

/** Every key of an entity, by what holds it: with a value that means something, or with why it is refused. */
const keys: Record<string, Record<string, [value: unknown, refused?: string]>> = {
  entity: {
    path: ["/Activities"],
    item: ["{path}({id})", isRests],
    id: ["/Id"],
    keyType: ["guid"],
    version: [{ pointer: "/Revision" }],
    create: [{ method: "PUT", class: "client-id" }],
    update: [{ method: "PUT" }],
    delete: [{ class: "conditional" }],
    reference: ["/ExternalRef"],
    lookup: ["{path}?ref={tempId}", isRests],
    found: [{ single: true }, isRests],
    match: ["/MemberNo"],
    references: [{ "/Mentor": "activity" }],
    list: [{}],
    encoding: ["json", isRests],
    envelope: [{ answer: "/d" }, isRests],
    toUpstream: ["{ 'Minutes': minutes }"],
    fromUpstream: ["{ 'minutes': Minutes }"],
    schema: [2],
    schemaDefault: [1],
    upcast: [[{ name: "one", from: 1, to: 2, data: "$" }]],
    scopes: [["org"]],
    write: [{ delete: [] }],
    conflict: ["merge"],
    reconcile: [{ ignore: ["/a"] }],
  },
  version: {
    header: ["etag"],
    pointer: ["/Revision"],
    number: [true, isRests],
  },
  create: {
    method: ["PUT"],
    class: ["opaque"],
    header: ["Repeatability-Request-ID"],
    keyTtlMs: [1_000],
    enabled: [false],
    contentType: ["application/json", isRests],
    path: ["{path}/new", isRests],
    answer: [{ id: "/id" }, isRests],
  },
  update: {
    method: ["PUT"],
    sends: ["record", isRests],
    class: ["conditional"],
    header: ["Repeatability-Request-ID"],
    keyTtlMs: [1_000],
    enabled: [false],
    contentType: ["application/json", isRests],
    path: ["{item}/change", isRests],
    query: ["rev", isRests],
    field: ["/rev", isRests],
    answer: [{ id: "/id" }, isRests],
  },
  delete: {
    method: ["DELETE"],
    body: [{ archived: true }, isRests],
    class: ["conditional"],
    header: ["Repeatability-Request-ID"],
    keyTtlMs: [1_000],
    enabled: [false],
    contentType: ["application/json", isRests],
    path: ["{item}/archive", isRests],
    query: ["rev", isRests],
    field: ["/rev", isRests],
  },
  list: {
    since: ["ModifiedAt"],
    path: ["{path}/all", isRests],
    page: ["page", isRests],
    firstPage: [0, isRests],
    offset: ["skip", isRests],
    cursor: [{ at: "/next", parameter: "after" }, isRests],
    next: ["/next", isRests],
    size: ["$top", isRests],
    pageSize: [50],
    items: ["/value", isRests],
    record: ["/doc", isRests],
    changes: [true],
    updatedAt: ["/ModifiedAt"],
  },
};

const schemas: Record<string, object> = {
  entity: EntityConfig,
  version: { properties: Object.assign({}, ...VersionConfig.anyOf.map(({ properties }) => properties)) },
  create: CreateConfig,
  update: UpdateConfig,
  delete: DeleteConfig,
  list: ListConfig,
};

test.each(Object.entries(schemas))("this page says of every key of %s what it is", (holder, schema) => {
  const { properties } = schema as { properties: object };
  expect(Object.keys(keys[holder]!).toSorted()).toEqual(Object.keys(properties).toSorted());
});

/** What another key needs beside it. */
const besides: Record<string, Record<string, object>> = {
  entity: { schemaDefault: { schema: 1 }, upcast: { schema: 2 } },
  version: { number: { pointer: "/Revision" } },
  create: { header: { class: "idempotency-key" }, keyTtlMs: { class: "idempotency-key" } },
  update: { header: { class: "idempotency-key" }, keyTtlMs: { class: "idempotency-key" } },
  delete: { header: { class: "idempotency-key" }, keyTtlMs: { class: "idempotency-key" } },
};

const all = Object.entries(keys).flatMap(([holder, those]) =>
  Object.entries(those).map(([key, [value, refused]]) => ({
    holder,
    key,
    value,
    refused,
    says: refused ?? "taken",
  })),
);

test.each(all)("$holder $key: $says", ({ holder, key, value, refused }) => {
  const given = { ...besides[holder]?.[key], [key]: value };
  const own = holder === "entity" ? given : { [holder]: given };
  const entity = { path: "/Activities", id: "/Id", keyType: "guid", ...own };
  const text = odataUpstream({ poll: { everyMs: 1_000 }, entities: { activity: { list: {}, ...entity } } });
  const of = `activity.${holder === "entity" ? "" : `${holder}.`}${key}: `;
  const problems = problemsOf(text).map((line) => line.slice(line.indexOf("activity.")));
  expect(problems.filter((line) => line.startsWith(of))).toEqual(
    refused === undefined ? [] : expect.arrayContaining([expect.stringContaining(refused)]),
  );
  if (refused === undefined) expect(problems).toEqual([]);
});

test("a set is no template, changes go by PATCH or PUT, deletes by DELETE, and times are properties", () => {
  const entity = {
    path: "/Orgs/{/org}/Activities",
    id: "/Id",
    keyType: "guid",
    update: { method: "POST" },
    delete: { method: "PATCH" },
    list: { since: "since={sinceMs}" },
  };
  expect(
    problemsOf(odataUpstream({ entities: { activity: entity } })).map((line) =>
      line.replace(/^.*activity\./, ""),
    ),
  ).toEqual([
    "path: can't have {placeholders} for kind odata: it is one entity set",
    "update.method: is for kind rest: odata changes by PATCH or PUT",
    "delete.method: is for kind rest: odata deletes by DELETE",
    "list.since: must be a property for kind odata, e.g. ModifiedAt",
  ]);
});

test("the protocol's own headers are the connector's", () => {
  const entities = { activity: { path: "/Activities", id: "/Id", keyType: "guid" } };
  const headers = { Prefer: "return=minimal", "sap-client": "100", "OData-MaxVersion": "4.01" };
  expect(
    problemsOf(odataUpstream({ headers, entities })).map((line) => line.replace(/^.*crm\./, "")),
  ).toEqual([
    "headers.Prefer: is set by the connector for kind odata",
    "headers.OData-MaxVersion: is set by the connector for kind odata",
  ]);
});

test("what only OData has is refused elsewhere", () => {
  const lines = ["keyType: guid", "list: { changes: true }"];
  const problems = problemsOf([...minimal, ...lines.map((line) => `            ${line}`)].join("\n"));
  expect(problems.map((line) => line.replace(/^.*activity\./, ""))).toEqual([
    "keyType: is for kind odata",
    "list.changes: is for kind odata",
  ]);
});

test.each([
  ["guid", []],
  ["number", [expect.stringContaining("temp IDs are no number keys")]],
])("of chosen keys that are a %s is warned so far as no temp ID can be one", (keyType, warnings) => {
  const text = odata("create: { class: client-id }", `keyType: ${keyType}`);
  expect(load(text).warnings).toEqual(warnings);
});
