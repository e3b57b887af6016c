import { expect, test } from "vitest";

import { load, minimal, problemsOf } from "../../../test/fixtures/configs.ts";

const odata = (...lines: string[]): string =>
  [...minimal, ...lines.map((line) => `            ${line}`)].join("\n").replace("kind: rest", "kind: odata");

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

test("what OData has its own way for is refused", () => {
  const more = ['lookup: "{path}?ref={tempId}"', "list: { page: page }"];
  expect(problemsOf(odata(...whole, ...more)).map((line) => line.replace(/^.*activity\./, ""))).toEqual([
    "lookup: is for kind rest: odata filters by `reference`",
    "list.page: is for kind rest: odata has its own way",
  ]);
});
