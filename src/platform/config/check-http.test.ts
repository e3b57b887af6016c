import { resolve } from "node:path";

import { describe, expect, test } from "vitest";

import { load, minimal, withUpstream } from "../../../test/fixtures/configs.ts";
import { tlsPem } from "../../../test/fixtures/tls-files.ts";
import { proxyOf } from "./proxy.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

function crmOf(text: string, more: NodeJS.ProcessEnv = {}): UpstreamConfig {
  return load(text, more).config.tenants["hlf"]!.upstreams["crm"]!;
}

test("certificates come from files beside the configuration, or from variables", () => {
  const ofFile = withUpstream(
    "tls: { cert: test/fixtures/tls/client.pem, key: ./test/fixtures/tls/client-key.pem, ca: '${CA}' }",
  );
  const { tls } = crmOf(ofFile, { CA: tlsPem.ca.replaceAll("\n", String.raw`\n`) });
  expect(tls).toEqual({ ...tlsPem.client, ca: tlsPem.ca });
});

test("a signing hook is found from the configuration on", () => {
  const { sign } = crmOf(withUpstream("sign: ./test/fixtures/hooks/hmac.ts"));
  expect(sign).toBe(resolve("test/fixtures/hooks/hmac.ts"));
});

test("the environment's proxy serves the upstream and its token endpoint, unless the configuration says otherwise", () => {
  const at = (baseUrl: string, ...lines: string[]): UpstreamConfig =>
    crmOf(withUpstream(...lines).replace(/baseUrl: .*/, `baseUrl: ${baseUrl}`), {
      HTTPS_PROXY: "http://p:3128",
      NO_PROXY: "id.example",
    });
  const auth =
    "auth: { type: oauth2ClientCredentials, tokenUrl: 'https://id.example/t', clientId: c, clientSecret: s }";
  expect(at("https://crm.example", auth)).toMatchObject({ proxy: "http://p:3128" });
  expect(at("https://crm.example", auth).auth).not.toHaveProperty("proxy");
  expect(at("http://crm.example")).not.toHaveProperty("proxy");
  expect(at("https://crm.example", "proxy: none")).not.toHaveProperty("proxy");
  expect(at("https://id.example", "proxy: http://q")).toMatchObject({ proxy: "http://q" });
  expect(crmOf(minimal.join("\n"))).not.toHaveProperty("proxy");
});

describe("the environment's proxy", () => {
  const both = { HTTPS_PROXY: "http://s", HTTP_PROXY: "plain:3128" };
  test.for<[string, NodeJS.ProcessEnv, string | undefined]>([
    ["https://a.example", both, "http://s"],
    ["http://a.example", both, "http://plain:3128"],
    ["http://a.example", { HTTPS_PROXY: "http://s" }, undefined],
    ["https://a.example", { ...both, https_proxy: "http://lower" }, "http://lower"],
    ["https://a.example", { ...both, https_proxy: "" }, "http://s"],
    ["https://a.example", { ...both, NO_PROXY: "*" }, undefined],
    ["https://a.example", { ...both, NO_PROXY: "b, example" }, undefined],
    ["https://a.example", { ...both, no_proxy: ".example" }, undefined],
    ["https://a.example", { ...both, NO_PROXY: "*.example" }, undefined],
    ["https://a.example", { ...both, NO_PROXY: "A.EXAMPLE:443" }, undefined],
    ["https://a.example:444", { ...both, NO_PROXY: "a.example:443" }, "http://s"],
    ["https://notexample", { ...both, NO_PROXY: "example,,." }, "http://s"],
    ["https://[2001:DB8::1]", { ...both, NO_PROXY: "2001:db8::1" }, undefined],
    ["https://[2001:db8::1]", { ...both, NO_PROXY: "[2001:db8::1]:443" }, undefined],
    ["https://[2001:db8::1]", { ...both, NO_PROXY: "2001:db8::2" }, "http://s"],
    ["https://127.0.0.1:8", both, undefined],
    ["https://[::1]", both, undefined],
    ["https://localhost", both, undefined],
  ])("to %s with %o is %s", ([url, env, proxy]) => {
    expect(proxyOf(url, env)).toBe(proxy);
  });
});
