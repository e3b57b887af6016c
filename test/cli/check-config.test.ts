import { createRequire } from "node:module";
import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo } from "node:net";

import { describe, expect, onTestFinished, test } from "vitest";

import { startODataUpstream } from "../fixtures/odata-upstream.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { aFile, cliEnv, configOf, runCli, type Ran } from "./run-cli.ts";

const payload = "nobody may read this";

/** Of classes that leave no question after a lost reply. */
const sure = {
  create: { class: "idempotency-key" },
  update: { class: "upsert" },
  delete: { class: "client-id" },
};
const searched = { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" };

async function probe(baseUrl: string, entity: object = {}): Promise<Ran> {
  const file = await configOf(baseUrl, { version: { header: "etag" }, ...sure, ...searched, ...entity });
  const ran = await runCli(["check-config", file, "--probe"], { env: cliEnv });
  expect(ran.out + ran.err).not.toContain(payload);
  expect(ran.out + ran.err).not.toContain(cliEnv.CLI_TOKEN);
  return ran;
}

/** What was found, each in one line with single spaces. */
const linesOf = ({ out }: Ran): string[] =>
  out
    .trim()
    .split("\n")
    .map((line) => line.replaceAll(/ +/g, " "));

async function anUpstream(): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream({ etags: true });
  onTestFinished(async () => await upstream.stop());
  upstream.seed("activities", [`{"id":1,"note":"${payload}"}`]);
  return upstream;
}

describe("check-config", { timeout: 180_000 }, () => {
  test("tells every error of a file at once, by file, line and path, with exit code 1", async () => {
    const file = await aFile("tenants:\n  HLF: {}\nlimits: { depth: many }\n");
    const { code, err } = await runCli(["check-config", file]);
    expect(code).toBe(1);
    expect(err).toContain(`${file}:2:3 tenants.HLF: the key must be`);
    expect(err).toContain(`${file}:3:18 limits.depth: must be a whole number`);
  });

  test("a sound file is exit code 0, and calls nobody", async () => {
    const upstream = await anUpstream();
    const file = await configOf(upstream.url, sure);
    const { code, out } = await runCli(["check-config", file], { env: cliEnv });
    expect([code, out]).toEqual([0, `${file} is valid.\n`]);
    expect(upstream.requests).toEqual([]);
  });

  test("calls whose lost replies nobody can resolve are named loudly", async () => {
    const { code, out } = await runCli(["check-config", await configOf("http://crm")], { env: cliEnv });
    expect([code, out]).toEqual([
      0,
      expect.stringContaining(
        "\nwarning: ours/crm/activity: A LOST REPLY TO A CALL (create, update, delete) CAN'T BE RESOLVED",
      ),
    ]);
  });

  test("a probe reads, shows what works without any of the data, and writes nothing", async () => {
    const upstream = await anUpstream();
    const ran = await probe(upstream.url);
    expect(linesOf(ran).slice(1)).toEqual([
      "works ours/crm/activity access",
      "works ours/crm/activity list 1 on the first page",
      "works ours/crm/activity id /id",
      "works ours/crm/activity version header etag",
      "works ours/crm/activity fromUpstream",
      "works ours/crm/activity unknown id answered as none",
      "works ours/crm/activity lookup an unknown reference finds nothing",
      "Nothing was written: creates, updates and deletes were not tried.",
    ]);
    expect(ran.code).toBe(0);
    expect(new Set(upstream.requests.map(({ method }) => method))).toEqual(new Set(["GET"]));
    expect(upstream.effects).toEqual([]);
  });

  test("that json-server ignores an unknown filter is told: exit code 2", async () => {
    const { url, methods } = await startJsonServer({ activities: [{ id: 1, note: payload }] });
    const ran = await probe(url);
    expect(ran.code).toBe(2);
    expect(linesOf(ran).find((line) => line.includes(" lookup "))).toMatch(
      /^unverified .* the filter is ignored: .* answered with 1 other records/,
    );
    expect(new Set(methods)).toEqual(new Set(["GET"]));
  });

  test.each([
    [
      "a mapping that can't take a real record",
      { fromUpstream: "$error('no')" },
      "broken ours/crm/activity fromUpstream",
    ],
    [
      "an ID that is elsewhere",
      { id: "/number" },
      "broken ours/crm/activity id a listed record has no ID at /number",
    ],
    [
      "a version that is not there",
      { version: { pointer: "/revision" } },
      "broken ours/crm/activity version a record has none",
    ],
    ["a collection that is not there", { path: "/a/b/c/d", list: {} }, "broken ours/crm/activity list"],
  ])("%s is broken: exit code 1", async (_, entity, line) => {
    const upstream = await anUpstream();
    const ran = await probe(upstream.url, entity);
    expect(linesOf(ran).filter((found) => found.startsWith(line))).toHaveLength(1);
    expect(ran.code).toBe(1);
  });

  test("refused access, and an upstream that is not there, are broken", async () => {
    const upstream = await anUpstream();
    upstream.always({}, faults.status(401, { body: payload }));
    const refused = await probe(upstream.url);
    expect([refused.code, linesOf(refused)[1]]).toEqual([
      1,
      "broken ours/crm/activity access the upstream answered 401",
    ]);
    await upstream.stop();
    const away = await probe(upstream.url);
    expect([away.code, linesOf(away)[1]]).toEqual([
      1,
      "broken ours/crm/activity access the request was not sent: ECONNREFUSED",
    ]);
  });

  test("an empty upstream can't show everything: exit code 2, and --json says the same", async () => {
    const upstream = await startScriptedUpstream();
    onTestFinished(async () => await upstream.stop());
    const file = await configOf(upstream.url, sure);
    const { code, out } = await runCli(["check-config", file, "--probe", "--json"], { env: cliEnv });
    const told = JSON.parse(out) as { exitCode: number; findings: { what: string; result: string }[] };
    expect([code, told.exitCode]).toEqual([2, 2]);
    expect(told.findings.filter(({ result }) => result === "unverified").map(({ what }) => what)).toEqual([
      "id",
      "fromUpstream",
    ]);
  });
});

describe("check-config against OData", { timeout: 180_000 }, () => {
  const upstream = { kind: "odata" };
  const entity = { path: "/Activities", id: "/Id", reference: "/externalRef" };

  test.each(["number", "string"] as const)(
    "a probe asks as the protocol has it, also with %s keys",
    async (keyType) => {
      await using system = await startODataUpstream({ keyType });
      system.service.seed([`{"note":"${payload}"}`]);
      const classes = { update: { class: "conditional" }, list: { since: "ModifiedAt" } };
      const file = await configOf(system.url, { ...entity, ...classes, keyType }, upstream);
      const ran = await runCli(["check-config", file, "--probe"], { env: cliEnv });
      expect(linesOf(ran).filter((line) => / ours\/crm\/activity /.test(line))).toEqual([
        "works ours/crm/activity access",
        "works ours/crm/activity list 1 on the first page",
        "works ours/crm/activity id /Id",
        "works ours/crm/activity since",
        "works ours/crm/activity version /@odata.etag",
        "works ours/crm/activity fromUpstream",
        "works ours/crm/activity unknown id answered as none",
        "works ours/crm/activity lookup an unknown reference finds nothing",
      ]);
      expect([ran.code, ran.out.includes(payload)]).toEqual([0, false]);
      expect(new Set(system.upstream.requests.map(({ method }) => method))).toEqual(new Set(["GET"]));
    },
  );

  test("that a service ignores the filter, or does not know it, is told", async () => {
    await using system = await startODataUpstream({ keyType: "number", ignoresFilters: true });
    system.service.seed(["{}", "{}"]);
    const file = await configOf(system.url, { ...entity, keyType: "number" }, upstream);
    const probing = ["check-config", file, "--probe"];
    const ignored = await runCli(probing, { env: cliEnv });
    expect(linesOf(ignored).find((line) => line.includes(" lookup "))).toMatch(
      /^unverified .* the filter is ignored: .* answered with 2 other records.* ten pages at most/,
    );
    expect(ignored.code).toBe(2);
    system.upstream.script({ path: /filter/ }, faults.status(400));
    const unknown = await runCli(probing, { env: cliEnv });
    expect([unknown.code, linesOf(unknown).find((line) => line.includes(" lookup "))]).toEqual([
      1,
      "broken ours/crm/activity lookup the upstream answered 400",
    ]);
  });
});

interface JsonServer {
  create(): { use(handler: unknown): void; listen(port: number, host: string, ready: () => void): Server };
  router(data: object): unknown;
}

async function startJsonServer(data: object): Promise<{ url: string; methods: string[] }> {
  const jsonServer = createRequire(import.meta.url)("json-server") as JsonServer;
  const app = jsonServer.create();
  const methods: string[] = [];
  app.use((request: IncomingMessage, _response: unknown, next: () => void) => {
    methods.push(request.method ?? "");
    next();
  });
  app.use(jsonServer.router(data));
  const { promise, resolve } = Promise.withResolvers<void>();
  const server = app.listen(0, "127.0.0.1", resolve);
  await promise;
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((done) => void server.close(done));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, methods };
}
