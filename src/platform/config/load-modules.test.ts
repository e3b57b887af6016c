import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, onTestFinished, test } from "vitest";

import { load, minimal, problemsOf } from "../../../test/fixtures/configs.ts";
import type { EntityConfig } from "./entity-schema.ts";

const crm = "tenants.hlf.upstreams.crm";
const plain = "module: ./test/fixtures/connectors/plain.ts";
const bySettings = "module: ./test/fixtures/connectors/by-settings.cjs";

/** An upstream by a module, from line 11 on, then its entities. */
function withModule(lines: string[], entity: string[] = ["activity: {}"]): string {
  return [
    ...minimal.slice(0, 10),
    ...lines.map((line) => `        ${line}`),
    "        entities:",
    ...entity.map((line) => `          ${line}`),
  ].join("\n");
}

function written(name: string, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, name);
  writeFileSync(file, text);
  return `module: ${file}`;
}

function entitiesOf(text: string): Record<string, EntityConfig> {
  return load(text).config.tenants["hlf"]!.upstreams["crm"]!.entities;
}

test("a module needs neither kind, baseUrl, path nor id, and says what it can do", () => {
  const { activity, note } = entitiesOf(withModule([plain], ["activity: {}", "note: {}"]));
  expect(activity).toMatchObject({
    path: "",
    id: "",
    create: { class: "upsert", method: "PUT", enabled: true },
    update: { class: "conditional", sends: "record", enabled: true },
    delete: { class: "idempotency-key", keyTtlMs: 5000, enabled: true },
    reference: "/ourRef",
    list: { since: "since", updatedAt: "/changedAt" },
  });
  expect(activity!.lookup).toBeDefined();
  expect(note).toMatchObject({
    create: { class: "opaque", method: "POST", enabled: true },
    update: { enabled: false },
    delete: { enabled: false },
  });
  expect(note).not.toHaveProperty("lookup");
  expect(note).not.toHaveProperty("list");
});

test("what its module says is no reason to warn, and serves polls and pairs", () => {
  expect(load(withModule([plain])).warnings).toEqual([]);
  expect(problemsOf(withModule([plain, "poll: { everyMs: 1000 }"]))).toEqual([]);
  expect(problemsOf(withModule([plain, "poll: { everyMs: 1000 }"], ["note: {}"]))[0]).toContain(
    "needs an entity",
  );
});

test("the operator may take a promise back, and make no other", () => {
  const { activity } = entitiesOf(withModule([plain], ["activity: { create: { class: opaque } }"]));
  expect(activity!.create).toMatchObject({ class: "opaque", method: "PUT" });
  const other = problemsOf(withModule([plain], ["activity: { create: { class: client-id } }"]));
  expect(other).toEqual([
    expect.stringContaining("the module says upsert; the only other one here is opaque"),
  ]);
});

const url = "baseUrl: http://old.example";
// oxfmt-ignore
const broken: [string, () => string, ...string[]][] = [
  ["a file that is not there", () => withModule(["module: ./nowhere.ts"]), `11:17 ${crm}.module: there is no such file`],
  ["a file that does not parse", () => withModule([written("a.ts", "export default {};\nconst b = = 1;")]), `11:17 ${crm}.module: can't be loaded (SyntaxError: Expression expected, line 2)`],
  ["a file that throws", () => withModule([written("a.js", "\n\nthrow new TypeError('no');")]), `11:17 ${crm}.module: can't be loaded (TypeError: no, line 3)`],
  ["a package that is not installed", () => withModule([written("a.mjs", "import 'xml-of-nobody';")]), `11:17 ${crm}.module: can't be loaded (Error: Cannot find package 'xml-of-nobody'`],
  ["an await at its top", () => withModule([written("a.mjs", "await 1; export default {};")]), `11:17 ${crm}.module: can't be loaded: it has an \`await\` outside`],
  ["a file without a connector", () => withModule(["module: ./test/fixtures/connectors/no-connector.js"]), `11:17 ${crm}.module: must export a connector`],
  ["JSON", () => withModule(["module: ./package.json"]), `11:17 ${crm}.module: must export a connector`],
  ["both a kind and a module", () => withModule(["kind: rest", plain, url]), `12:17 ${crm}.module: stands instead of \`kind\``],
  ["settings for a kind", () => `${minimal.join("\n")}\n        settings: { a: 1 }`, `17:19 ${crm}.settings: is for \`module\``],
  ["a kind without a baseUrl", () => minimal.filter((line) => !line.includes("baseUrl")).join("\n"), `9:7 ${crm}.baseUrl: is missing`],
  ["tokens for nobody", () => withModule([plain, "auth: { type: bearer, token: a }"]), `12:15 ${crm}.auth: is for calls by HTTP, and there is no \`baseUrl\``],
  ["an entity that the module does not know", () => withModule([plain], ["activty: {}"]), `13:20 ${crm}.entities.activty: the module has no such entity (did you mean \`activity\`?)`],
  ["an entity by an inherited name", () => withModule([plain], ["toString: {}"]), `13:21 ${crm}.entities.toString: the module has no such entity`],
  ["what a module knows itself", () => withModule([plain], ["activity:", "  path: /a", "  list: { page: p }", "  create: { method: PUT, header: X }"]), `14:19 ${crm}.entities.activity.path: is for \`kind\``, `15:19 ${crm}.entities.activity.list: is for \`kind\``, `16:31 ${crm}.entities.activity.create.method: is for \`kind\``, `16:44 ${crm}.entities.activity.create.header: is for \`kind\``],
  ["an operation that the module has not", () => withModule([plain], ["note: { delete: { enabled: true } }"]), `13:38 ${crm}.entities.note.delete.enabled: the module can't do that`],
  ["settings that the module refuses", () => withModule([plain, "settings:", "  token: ${CRM_TOKEN}", "  region: south"]), `14:19 ${crm}.settings.region: there is no region "south" for \${CRM_TOKEN}`],
  ["abilities that throw", () => withModule([bySettings, "settings: { fails: '${CRM_TOKEN}' }"]), `11:17 ${crm}.module: can't be used (RangeError: no such server: \${CRM_TOKEN})`],
  ["no abilities at all", () => withModule([bySettings]), `11:17 ${crm}.module: can't be used (TypeError: \`entities\` gives no map)`],
  ["a class that there is not", () => withModule([bySettings, "settings: { kinds: { activity: { create: { class: safe } } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: it/create/class must be equal to one of`],
  ["an ability that there is not", () => withModule([bySettings, "settings: { kinds: { activity: { search: true } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: it must NOT have additional properties`],
  ["lookups without a reference", () => withModule([bySettings, "settings: { kinds: { activity: { lookup: true } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: \`lookup\` needs \`reference\``],
  ["creates that are looked up, and no lookup", () => withModule([bySettings, "settings: { kinds: { activity: { create: { class: lookup } } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: a create of class lookup needs`],
  ["creates that change what nothing names", () => withModule([bySettings, "settings: { kinds: { activity: { create: { class: upsert } } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: a create of class upsert needs`],
  ["a check that is asynchronous", () => withModule([written("a.mjs", "export default { entities: {}, open() {}, async check() { return []; } };")]), `11:17 ${crm}.module: can't be used (TypeError`],
  ["keys that age without keys", () => withModule([bySettings, "settings: { kinds: { activity: { create: { class: opaque, keyTtlMs: 5 } } } }"]), `11:17 ${crm}.module: of its entity \`activity\`: \`keyTtlMs\` of create`],
];

test.each(broken)("%s is told by its line", (_name, text, ...expected) => {
  const beginnings = expected.map((beginning) => `tidegate.yaml:${beginning}`);
  const problems = problemsOf(text());
  expect(problems.map((line, index) => line.slice(0, beginnings[index]?.length))).toEqual(beginnings);
});

test("the types for authors stand alone: a module never gets at what is the engine's", () => {
  expect(readFileSync("src/connector-module.ts", "utf8")).not.toMatch(/^\s*(import|export .* from)\b/m);
});
