import { readFileSync } from "node:fs";

import { Ajv } from "ajv";
import { expect, test } from "vitest";
import { parse } from "yaml";

import { fileSchema } from "./file-schema.ts";

/** As an editor does: the published file, no defaults filled in, no variables replaced. */
function editorErrors(text: string): unknown {
  const published = JSON.parse(readFileSync("config/tidegate.schema.json", "utf8")) as object;
  const ajv = new Ajv({ allErrors: true, strict: false });
  ajv.validate(published, parse(text, { stringKeys: true }));
  return ajv.errors ?? [];
}

test("the published schema is the one that the gateway checks with", () => {
  expect(JSON.parse(readFileSync("config/tidegate.schema.json", "utf8"))).toEqual(fileSchema());
});

test.each(["config/demo.yaml", "config/example.yaml"])("an editor finds no fault in %s", (path) => {
  const text = readFileSync(path, "utf8");
  expect(text).toContain("# yaml-language-server: $schema=./tidegate.schema.json");
  expect(editorErrors(text)).toEqual([]);
});

test("an editor finds a slip in a key", () => {
  const text = readFileSync("config/demo.yaml", "utf8").replace("timeoutMs", "timeoutMS");
  expect(editorErrors(text)).toHaveLength(1);
});

test("every key is explained", () => {
  expect(unexplained(fileSchema(), "")).toEqual([]);
});

function unexplained(schema: unknown, path: string): string[] {
  if (typeof schema !== "object" || schema === null) return [];
  const { properties = {} } = schema as {
    properties?: Record<string, { description?: string; const?: string }>;
  };
  const own = Object.entries(properties)
    .filter(([, value]) => value.description === undefined && value.const === undefined)
    .map(([key]) => `${path}/${key}`);
  return [...own, ...Object.entries(schema).flatMap(([key, value]) => unexplained(value, `${path}/${key}`))];
}
