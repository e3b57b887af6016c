import { pino } from "pino";
import { describe, expect, onTestFinished, test } from "vitest";

import { startScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { load, minimal } from "../../../test/fixtures/configs.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { openUpstream, type Upstream } from "../upstream.ts";

const lines: string[] = [];
const log = pino({ base: null }, { write: (line: string) => void lines.push(line) });

function configured(module: string, more: string[], entity = "activity: {}"): UpstreamConfig {
  const text = [
    ...minimal.slice(0, 10),
    `        module: ./test/fixtures/connectors/${module}`,
    ...more.map((line) => `        ${line}`),
    `        entities: { ${entity} }`,
  ].join("\n");
  return load(text).config.tenants["hlf"]!.upstreams["crm"]!;
}

function opened(module: string, ...more: string[]): Upstream {
  const upstream = openUpstream("crm", configured(module, more), { log });
  onTestFinished(() => upstream.close());
  return upstream;
}

const by = (settings: string) => () => opened("by-settings.cjs", `settings: ${settings}`);

describe("a module is opened", () => {
  test("with its settings, and gets calls, HTTP and a log that gives no secret away", async () => {
    await using server = await startScriptedUpstream();
    lines.length = 0;
    const upstream = opened("echo.ts", "settings: { password: '${CRM_TOKEN}' }", `baseUrl: ${server.url}`);
    const answer = await upstream.create({
      entity: "activity",
      data: '{"minutes":45}',
      idempotencyKey: "k-1",
    });
    expect(answer).toMatchObject({ id: "crm/k-1", data: '{"minutes":45}' });
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]).toMatchObject({ method: "POST", path: "/token" });
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]!)).toMatchObject({ upstream: "crm", from: "connector", facts: { tries: 1 } });
    expect(lines[0]).not.toContain("token");
    expect(lines[0]).not.toContain("kari@example.org");
  });

  test("and what can't be opened stops the start, without a secret in the reason", () => {
    const kinds = "kinds: { activity: { create: { class: opaque } } }";
    expect(by(`{ ${kinds} }`)).toThrow(
      "upstream crm: the module can't be opened (Error: the address … is unknown)",
    );
    expect(by(`{ opens: nothing, ${kinds} }`)).toThrow(
      "upstream crm: the module opens no connector with `create`",
    );
    const more = "kinds: { activity: { create: { class: opaque }, delete: { class: opaque } } }";
    expect(by(`{ opens: all, ${more} }`)).toThrow("opens no connector with `delete`");
  });
});
