import { describe, expect, test } from "vitest";

import {
  env,
  minimal,
  problemsOf,
  twoTenants,
  withActivity,
  withUpstream,
} from "../../../test/fixtures/configs.ts";
import { loadConfig } from "./load.ts";

const crm = "tenants.hlf.upstreams.crm";
const activity = `${crm}.entities.activity`;

/** What is wrong, the file, and how each line of the error begins: line, column, path, message. */
// oxfmt-ignore
const broken: [string, string, ...string[]][] = [
  ["an empty file", "", "1:1: must be a map, not empty"],
  ["a list", "- a", "1:1: must be a map, not a list"],
  ["no tenants", "tenants: {}", "1:10 tenants: must not be empty"],
  ["an unknown key", `${minimal.join("\n")}\ntenant: {}`, "17:1 tenant: unknown key (did you mean `tenants`?)"],
  ["a slip in a key", withUpstream("timeoutMS: 1"), `12:9 ${crm}.timeoutMS: unknown key (did you mean \`timeoutMs\`?)`],
  ["a duplicate key", withUpstream("role: primary"), `12:9 ${crm}.role: this key stands here twice`],
  ["a tenant id in capitals", minimal.join("\n").replace("hlf:", "HLF:"), "2:3 tenants.HLF: the key must be a name of"],
  ["an entity name with a space", minimal.join("\n").replace("activity:", "an activity:"), `14:11 ${crm}.entities["an activity"]: the key must be`],
  ["a missing key", minimal.slice(0, -1).join("\n"), `14:11 ${activity}.id: is missing`],
  ["a value left empty", withUpstream("retry:"), `12:9 ${crm}.retry: must be a map, not empty`],
  ["a wrong type", withUpstream("concurrency: many"), `12:22 ${crm}.concurrency: must be a whole number, not a string`],
  ["a number out of range", withUpstream("timeoutMs: 0"), `12:20 ${crm}.timeoutMs: must be >= 1`],
  ["a slip in a choice", withUpstream("onPark: hold-lanes"), `12:17 ${crm}.onPark: must be one of hold-dependents, hold-lane (did`],
  ["a status that is no failure", withUpstream("statuses: { 200: park }"), `12:21 ${crm}.statuses.200: the key must be an HTTP status`],
  ["another auth type", withUpstream("auth: { type: digest }"), `12:23 ${crm}.auth.type: must be one of bearer, basic, apiKey`],
  ["an auth key missing", withUpstream("auth: { type: basic, username: a }"), `12:15 ${crm}.auth.password: is missing`],
  ["a line break in a header", withUpstream('headers: { X-A: "a\\nb" }'), `12:25 ${crm}.headers.X-A: must be a header value`],
  ["a base URL without scheme", minimal.join("\n").replace("http:", ""), `12:18 ${crm}.baseUrl: must be an absolute http`],
  ["another scheme", minimal.join("\n").replace("http:", "ftp:"), `12:18 ${crm}.baseUrl: must be an absolute http`],
  ["credentials in a URL", minimal.join("\n").replace("//127", "//a:b@127"), `12:18 ${crm}.baseUrl: must not carry credentials`],
  ["pauses upside down", withUpstream("retry: { baseMs: 10, capMs: 5 }"), `12:16 ${crm}.retry: \`baseMs\` must not exceed`],
  ["no primary", minimal.join("\n").replace("role: primary", "role: shadow"), "8:5 tenants.hlf.upstreams: one of the upstreams must"],
  ["a primary that follows", withUpstream("follow: true"), `12:17 ${crm}.follow: is for shadows, and this is not one`],
  ["pairs with a shadow", `${minimal.join("\n")}\n      erp: { role: shadow, kind: rest, baseUrl: "http://erp", entities: { a: { path: /a, id: /id, match: /no } } }`, "17:106 tenants.hlf.upstreams.erp.entities.a.match: needs `list`"],
  ["a shadow that is polled", `${minimal.join("\n")}\n      erp: { role: shadow, kind: rest, baseUrl: "http://erp", poll: { everyMs: 1000 }, entities: { a: { path: /a, id: /id } } }`, "17:69 tenants.hlf.upstreams.erp.poll: is for the primary"],
  ["a shadow that tells", `${minimal.join("\n")}\n      erp: { role: shadow, kind: rest, baseUrl: "http://erp", events: { secrets: [s], entity: /e, id: /i }, entities: { a: { path: /a, id: /id } } }`, "17:71 tenants.hlf.upstreams.erp.events: is for the primary"],
  ["a second primary", `${minimal.join("\n")}\n      erp: { role: primary, kind: rest, baseUrl: "http://erp", entities: { a: { path: /a, id: /id } } }`, "17:20 tenants.hlf.upstreams.erp.role: a tenant has one primary, and `crm` is it already"],
  ["OData without a key's type", minimal.join("\n").replace("kind: rest", "kind: odata"), `14:11 ${activity}: needs \`keyType\` for kind odata`],
  ["neither kind nor module", minimal.join("\n").replace("kind: rest", ""), `9:7 ${crm}: needs \`kind\` or \`module\``],
  ["a token endpoint that is no URL", withUpstream("auth: { type: oauth2ClientCredentials, tokenUrl: u, clientId: c, clientSecret: s }"), `12:58 ${crm}.auth.tokenUrl: must be an absolute http`],
  ["a token parameter of the gateway's", withUpstream("auth: { type: oauth2ClientCredentials, tokenUrl: http://u, clientId: c, clientSecret: s, parameters: { scope: a } }"), `12:119 ${crm}.auth.parameters.scope: is set by the gateway itself`],
  ["a proxy that is no URL", withUpstream("proxy: 'proxy:3128'"), `12:16 ${crm}.proxy: must be an absolute http`],
  ["a certificate without a key", withUpstream("tls: { cert: test/fixtures/tls/client.pem }"), `12:14 ${crm}.tls: \`cert\` and \`key\` belong together`],
  ["a certificate with another's key", withUpstream("tls: { cert: test/fixtures/tls/client.pem, key: test/fixtures/tls/server-key.pem }"), `12:14 ${crm}.tls: does not make a TLS context: ERR_OSSL`],
  ["a certificate that is not there", withUpstream("tls: { ca: nowhere.pem }"), `12:20 ${crm}.tls.ca: the file can't be read (ENOENT)`],
  ["a certificate that is none", withUpstream("tls: { ca: package.json }"), `12:20 ${crm}.tls.ca: is not PEM`],
  ["a signing hook that is not there", withUpstream("sign: ./nowhere.ts"), `12:15 ${crm}.sign: there is no such file`],
  ["a signing hook without a function", withUpstream("sign: ./test/fixtures/hooks/none.ts"), `12:15 ${crm}.sign: must export one function`],
  ["a signing hook that can't be read", withUpstream("sign: ./package-lock.json"), `12:15 ${crm}.sign: must export one function`],
  ["an unknown conflict policy", withActivity("conflict: newest"), `17:23 ${activity}.conflict: must be`],
  ["a path without slash", minimal.join("\n").replace("/activities", "activities"), `15:19 ${activity}.path: must be a path such as`],
  ["a bad pointer", minimal.join("\n").replace("id: /id", "id: id"), `16:17 ${activity}.id: must be a JSON Pointer`],
  ["a bad escape in a pointer", withActivity("reference: /a~2"), `17:24 ${activity}.reference: must be a JSON Pointer`],
  ["a bad pointer as a key", withActivity("references: { mentor: activity }"), `17:27 ${activity}.references.mentor: the key must be a JSON Pointer`],
  ["a version of neither form", withActivity("version: { head: etag }"), `17:22 ${activity}.version: must be { header } or { pointer, number }`],
  ["a scope with an open brace", withActivity("scopes: [org, 'user:{/mentor']"), `17:27 ${activity}.scopes[1]: must be a scope`],
  ["a claim in a record's scope", withActivity("scopes: ['user:{sub}']"), `17:22 ${activity}.scopes[0]: must be a scope`],
  ["a role as a scope", withActivity("scopes: ['role:x']"), `17:22 ${activity}.scopes[0]: must be a scope`],
  ["a rule of neither form", withActivity("write: { update: ['user:{mentor}'] }"), `17:31 ${activity}.write.update[0]: must be a scope`],
  ["a token scope of no form", minimal.join("\n").replace("upstreams:", "  scopes: ['user:{}']\n    upstreams:"), "8:16 tenants.hlf.auth.scopes[0]: must be a scope"],
  ["JSONata that does not parse", withActivity("toUpstream: '{ \"a\": '"), `17:25 ${activity}.toUpstream: is not JSONata: `],
  ["JSONata with a wrong token", withActivity("toUpstream: |", "  {", "    \"a\": a,", "    \"b\": b]", "  }"), `17:25 ${activity}.toUpstream: is not JSONata: Expected "}", got "]" (line 3, column 9, at "]" of the expression)`],
  ["a regular expression that is none", withActivity("fromUpstream: $match(a, /(/)"), `17:27 ${activity}.fromUpstream: is not JSONata: `],
  ["several that do not parse", withActivity("toUpstream: '1 +'", "fromUpstream: 'a b'"), `17:25 ${activity}.toUpstream: is not JSONata: `, `18:27 ${activity}.fromUpstream: is not JSONata: Syntax error: "b" (line 1, column 3, at "b" of the expression)`],
  ["lookup without a place for the ID", withActivity("reference: /a", "lookup: '{path}?ref=x'"), `18:21 ${activity}.lookup: must be a path with {tempId}`],
  ["class lookup without reference", withActivity("create: { class: lookup }", "lookup: '{path}?r={tempId}'"), `17:30 ${activity}.create.class: class lookup needs the entity's \`reference\``, `18:21 ${activity}.lookup: needs \`reference\``],
  ["class lookup without lookup", withActivity("create: { class: lookup }", "reference: /r"), `17:30 ${activity}.create.class: class lookup needs the entity's \`lookup\``],
  ["conditional without version", withActivity("update: { class: conditional }"), `17:30 ${activity}.update.class: class conditional needs the entity's \`version\``],
  ["a version without the present one", withActivity("schemaDefault: 1"), `17:28 ${activity}.schemaDefault: needs \`schema\``],
  ["a default that no step takes", withActivity("schema: 3", "schemaDefault: 1"), `18:28 ${activity}.schemaDefault: no step of \`upcast\` takes version 1`],
  ["a gap between steps", withActivity("schema: 4", "upcast:", "  - { from: 1, to: 2, name: a, data: $ }", "  - { from: 3, to: 4, name: b, data: $ }"), `19:32 ${activity}.upcast[0].to: no step leads from version 2 to 4`],
  ["a step backwards", withActivity("schema: 4", "upcast: [{ from: 4, to: 4, name: a, data: $ }]"), `18:37 ${activity}.upcast[0].to: must be later than`],
  ["a step beyond", withActivity("schema: 1", "upcast: [{ from: 0, to: 2, name: a, data: $ }]"), `18:37 ${activity}.upcast[0].to: is beyond \`schema\`, 1`],
  ["two steps of one version", withActivity("schema: 3", "upcast: [{ from: 1, to: 3, name: a, data: $ }, { from: 1, to: 3, name: b, data: $ }]"), `18:68 ${activity}.upcast[1].from: another step takes version 1 already`],
  ["a step that does not parse", withActivity("schema: 2", "upcast: [{ from: 1, to: 2, name: a, data: '{' }]"), `18:55 ${activity}.upcast[0].data: is not JSONata`],
  ["versions of a shadow", `${minimal.join("\n")}\n      erp: { role: shadow, kind: rest, baseUrl: "http://erp", entities: { a: { path: /a, id: /id, schema: 1 } } }`, "17:107 tenants.hlf.upstreams.erp.entities.a.schema: is for the primary"],
  ["a key's age without keys", withActivity("create: { class: upsert, keyTtlMs: 5 }"), `17:48 ${activity}.create.keyTtlMs: is for class idempotency-key`],
  ["an item without an ID", withActivity("item: /activity"), `17:19 ${activity}.item: needs {id}`],
  ["an unknown value in a URL", withActivity("item: '{path}/{no}'"), `17:19 ${activity}.item: must be a path such as`],
  ["a POST to the ID of what is not there yet", withActivity("create: { path: '{path}/{id}' }"), `17:29 ${activity}.create.path: a record that is created by POST has no {id}`],
  ["a change sent by a value that is not known", withActivity("update: { path: '{item}/{/a}' }"), `17:29 ${activity}.update.path: {/a} is not part of where`],
  ["a list below other records", minimal.join("\n").replace("/activities", "'/p/{/p}/a'") + "\n            list: { size: n }", `17:19 ${activity}.list: records can't be listed below one other`],
  ["a search below other records", minimal.join("\n").replace("/activities", "'/p/{/p}/a'") + "\n            reference: /r\n            lookup: '{path}?r={tempId}'", `18:21 ${activity}.lookup: can't begin with a {path} that`],
  ["our IDs below other records", minimal.join("\n").replace("/activities", "'/p/{/p}/a'") + "\n            create: { class: client-id }", `17:21 ${activity}.create: a record that is found by {/p} can't have an ID that we choose`],
  ["a version in two places", withActivity("version: { header: etag }", "update: { class: conditional, query: rev, field: /rev }"), `18:62 ${activity}.update.field: the version goes into one place`],
  ["a time without a place in the value", withActivity("list: { since: after=ge }"), `17:28 ${activity}.list.since: must be a query parameter's name, or name=value with {since}`],
  ["a name in a search that is none", withActivity("reference: /r", "lookup: '{path}?r={tempId}&i={id}'"), `18:21 ${activity}.lookup: must be a path with {tempId} in it`],
  ["failures that are successes", withUpstream("errors: [{ at: /ok, status: 200 }]"), "12:37 tenants.hlf.upstreams.crm.errors[0].status: must be"],
  ["a version's place without conditions", withActivity("update: { query: rev }"), `17:30 ${activity}.update.query: is for class conditional`],
  ["a DELETE with a body", withActivity("delete: { body: { archived: true } }"), `17:29 ${activity}.delete.body: a DELETE has no body`],
  ["two kinds of pages", withActivity("list: { page: p, next: /next }"), `17:36 ${activity}.list.next: pages are asked for by \`page\` already`],
  ["a page's size nobody is told", withActivity("list: { pageSize: 5 }"), `17:31 ${activity}.list.pageSize: needs \`size\``],
  ["an answer to no search", withActivity("found: { single: true }"), `17:20 ${activity}.found: says how \`lookup\` is answered`],
  ["a short secret", minimal.join("\n").replace("${HLF_JWT_SECRET}", "short"), "7:15 tenants.hlf.auth.secret: the secret is shorter than 32 characters"],
  ["HS256 without secret", minimal.filter((line) => !line.includes("secret")).join("\n"), "3:5 tenants.hlf.auth: algorithm HS256 needs `secret`"],
  ["HS256 with keys", minimal.join("\n").replace("upstreams:", "  jwksUri: https://id/keys\n    upstreams:"), "8:16 tenants.hlf.auth.jwksUri: algorithm HS256 takes no"],
  ["RS256 with a secret", minimal.join("\n").replace("HS256", "RS256\n      jwksUri: https://id/keys"), "8:15 tenants.hlf.auth.secret: algorithm RS256 takes no"],
  ["the operators' secret at a tenant", `${minimal.join("\n")}\nops: { auth: { issuer: ops, audience: a, algorithm: HS256, secret: \${HLF_JWT_SECRET} } }`, "17:68 ops.auth.secret: tenant `hlf` has the same secret"],
  ["the operators' keys at a tenant", `${minimal.join("\n").replace("HS256", "RS256").replace("secret: ${HLF_JWT_SECRET}", "jwksUri: https://id/keys")}\nops: { auth: { issuer: https://id.hlf.example, audience: a, algorithm: RS256, jwksUri: https://id/keys } }`, "17:24 ops.auth.issuer: tenant `hlf` has the same issuer and keys"],
  ["one mutation larger than a body", `${minimal.join("\n")}\nlimits: { bodyBytes: 1024 }`, "17:9 limits.mutationBytes: must not exceed"],
  ["two tenants for one token", twoTenants("match: { org: a }", "match: { region: x }"), "20:15 tenants.two.auth.issuer: a token of this issuer could belong to tenant `hlf`"],
  ["two tenants, one without match", twoTenants("match: { org: a }", ""), "20:15 tenants.two.auth.issuer: a token of this issuer"],
  ["a placeholder of another form", withUpstream("actorHeader: '${CRM_TOKEN:-x}'"), `12:22 ${crm}.actorHeader: \`\${\` begins a variable's name`],
  ["a placeholder as a key", withUpstream("headers: { '${CRM_TOKEN}': a }"), `12:21 ${crm}.headers["\${CRM_TOKEN}"]: a variable can stand in a value only`],
];

describe("what does not load", () => {
  test.each(broken)("%s is told by its line", (_name, text, ...expected) => {
    const beginnings = expected.map((beginning) => `tidegate.yaml:${beginning}`);
    const problems = problemsOf(text);
    expect(problems.map((line, index) => line.slice(0, beginnings[index]?.length))).toEqual(beginnings);
  });

  test("all errors are told at once, in the file's order", () => {
    const text = withActivity(
      "create: { class: lookup }",
      "toUpstream: '('",
      "conflict: newest",
      "speed: fast",
    )
      .replace("role: primary", "role: [primary]")
      .replace("${HLF_JWT_SECRET}", "${NOT_SET}")
      .replace("issuer: https://id.hlf.example", "issuers: x");
    expect(problemsOf(text).map((line) => line.split(": ")[0])).toEqual([
      "tidegate.yaml:3:5 tenants.hlf.auth.issuer",
      "tidegate.yaml:4:7 tenants.hlf.auth.issuers",
      "tidegate.yaml:7:15 tenants.hlf.auth.secret",
      "tidegate.yaml:10:15 tenants.hlf.upstreams.crm.role",
      `tidegate.yaml:17:30 ${activity}.create.class`,
      `tidegate.yaml:17:30 ${activity}.create.class`,
      `tidegate.yaml:18:25 ${activity}.toUpstream`,
      `tidegate.yaml:19:23 ${activity}.conflict`,
      `tidegate.yaml:20:13 ${activity}.speed`,
    ]);
  });

  test.each([
    ["a broken flow list", "a: [1, 2\nb: 3", "2:1"],
    ["a tab", "tenants:\n\ta: 1", "2:1"],
    ["two documents", "tenants: {}\n---\na: 1", "2:1"],
    ["a tag of its own", "tenants: !!js/function 'x'", "1:10"],
    ["a key that is a list", "? [a]\n: b", "1:3"],
    ["an alias to nothing", "tenants: *nobody", "1:10"],
    ["an alias to itself", "tenants: &a { x: *a }", "1:18"],
  ])("YAML with %s is refused", (_name, text, position) => {
    expect(problemsOf(text).join("\n")).toContain(`tidegate.yaml:${position}`);
  });

  test("aliases that multiply into billions are refused, not expanded", () => {
    const levels = Array.from({ length: 12 }, (_, level) => {
      const parts = level === 0 ? Array(10).fill("x") : Array(10).fill(`*l${level - 1}`);
      return `l${level}: &l${level} [${parts.join(", ")}]`;
    });
    expect(problemsOf(levels.join("\n"))).toEqual([
      expect.stringMatching(/^tidegate.yaml:2:\d+: aliases: Excessive alias count/),
    ]);
  });

  test.each(["__proto__", "constructor"])("`%s` is an unknown key like any other", (key) => {
    expect(problemsOf(`${minimal.join("\n")}\n${key}: { limits: { mutations: 1 } }`)).toEqual([
      `tidegate.yaml:17:1 ${key}: unknown key`,
    ]);
  });

  test("any part may be of any wrong type without the checks breaking down", () => {
    const wrongs = ["~", "[]", "{}", "x", "7", "[x]", "{ x: ~ }", "{ x: { x: ~ } }"];
    const keys = ["tenants", "hlf", "auth", "upstreams", "crm", "entities", "activity", "path", "issuer"];
    for (const key of keys)
      for (const wrong of wrongs)
        expect(problemsOf(cutAt(key, wrong)).join(), `${key}: ${wrong}`).toMatch(/^tidegate.yaml|^$/);
  });

  test("a file that is not there is named", () => {
    expect(() => loadConfig("config/nowhere.yaml", env)).toThrow(
      "config/nowhere.yaml: there is no such file",
    );
  });
});

/** The minimal configuration whose `key` has another value. */
function cutAt(key: string, value: string): string {
  const start = minimal.findIndex((line) => line.trim().startsWith(`${key}:`));
  const indent = minimal[start]?.search(/\S/) ?? 0;
  const length = minimal.slice(start + 1).findIndex((line) => line.search(/\S/) <= indent);
  const rest = length === -1 ? [] : minimal.slice(start + 1 + length);
  return [...minimal.slice(0, start), `${" ".repeat(indent)}${key}: ${value}`, ...rest].join("\n");
}
