import type { IncomingMessage } from "node:http";
import { createServer, type ServerOptions } from "node:https";
import type { AddressInfo } from "node:net";

import { describe, expect, onTestFinished, test } from "vitest";

import { startHttpProxy } from "../../../test/fixtures/http-proxy.ts";
import { startScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { tlsPem } from "../../../test/fixtures/tls-files.ts";
import { UpstreamError } from "../connector.ts";
import { openHttpClient, type HttpClient, type HttpClientOptions, type HttpRequest } from "../http-client.ts";

interface SecureServer {
  port: number;
  requests: IncomingMessage[];
}

async function startSecureServer(options: ServerOptions = {}): Promise<SecureServer> {
  const requests: IncomingMessage[] = [];
  const server = createServer({ ...tlsPem.server, ...options }, (request, response) => {
    requests.push(request);
    response.end("{}");
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => void server.close(resolve));
  });
  return { port: (server.address() as AddressInfo).port, requests };
}

function clientOf(origin: string, options: Partial<HttpClientOptions> = {}): HttpClient {
  const client = openHttpClient(origin, { connections: 1, timeoutMs: 10_000, ...options });
  onTestFinished(() => client.close());
  return client;
}

function post(rest: Partial<HttpRequest> = {}): HttpRequest {
  return { method: "POST", path: "/activities?a=1", headers: [], body: "{}", ...rest };
}

async function failureOf(call: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await call.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

describe("TLS", () => {
  test("an upstream of an authority of one's own is believed when that is configured, and only then", async () => {
    const server = await startSecureServer();
    const origin = `https://127.0.0.1:${server.port}`;
    const failure = await failureOf(clientOf(origin).send(post()));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    expect(server.requests).toHaveLength(0);
    expect((await clientOf(origin, { tls: { ca: tlsPem.ca } }).send(post())).status).toBe(200);
  });

  test("a certificate for another host is not believed", async () => {
    const server = await startSecureServer();
    const proxy = await startHttpProxy(server.port);
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    const client = clientOf("https://erp.test", { tls: { ca: tlsPem.ca }, proxy: proxy.url });
    expect(await failureOf(client.send(post()))).toMatchObject({ certainty: "not-sent" });
    expect(server.requests).toHaveLength(0);
  });

  // A TLS 1.3 client has written its request when it learns that it lacks a certificate: then the call is ambiguous.
  test("an upstream that asks for a certificate gets ours; without one, nothing is sent", async () => {
    const server = await startSecureServer({
      ca: tlsPem.ca,
      requestCert: true,
      rejectUnauthorized: true,
      maxVersion: "TLSv1.2",
    });
    const origin = `https://127.0.0.1:${server.port}`;
    const failure = await failureOf(clientOf(origin, { tls: { ca: tlsPem.ca } }).send(post()));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    expect(server.requests).toHaveLength(0);
    const known = clientOf(origin, { tls: { ca: tlsPem.ca, ...tlsPem.client } });
    expect((await known.send(post())).status).toBe(200);
  });
});

describe("a proxy", () => {
  test("tunnels to an https upstream, which alone sees the request", async () => {
    const server = await startSecureServer();
    await using proxy = await startHttpProxy(server.port);
    const url = proxy.url.replace("//", "//us%40er:se%3Acret@");
    const client = clientOf("https://crm.test", { tls: { ca: tlsPem.ca }, proxy: url });
    await client.send(post());
    await client.send(post());
    expect(proxy.asked).toEqual(["CONNECT crm.test:443"]);
    expect(proxy.shown).toEqual([`Basic ${Buffer.from("us@er:se:cret").toString("base64")}`]);
    expect(server.requests.map(({ url: path, headers }) => [path, headers.host])).toEqual([
      ["/activities?a=1", "crm.test"],
      ["/activities?a=1", "crm.test"],
    ]);
    expect(server.requests[0]!.headers["proxy-authorization"]).toBeUndefined();
  });

  test("that speaks TLS itself, by an authority of one's own, tunnels as well", async () => {
    const server = await startSecureServer();
    await using proxy = await startHttpProxy(server.port, tlsPem.server);
    const client = clientOf("https://crm.test", { tls: { ca: tlsPem.ca }, proxy: proxy.url });
    expect((await client.send(post())).status).toBe(200);
    expect(proxy.asked).toEqual(["CONNECT crm.test:443"]);
    const unbelieved = clientOf("https://crm.test", { proxy: proxy.url });
    expect(await failureOf(unbelieved.send(post()))).toMatchObject({ certainty: "not-sent" });
    expect(server.requests).toHaveLength(1);
  });

  test("is asked for an IPv6 address in brackets", async () => {
    await using proxy = await startHttpProxy(1);
    proxy.refuses = "403 Forbidden";
    await failureOf(clientOf("https://[2001:db8::1]:8443", { proxy: proxy.url }).send(post()));
    expect(proxy.asked).toEqual(["CONNECT [2001:db8::1]:8443"]);
  });

  test.for(["403 Forbidden", "407 Proxy Authentication Required", "503 Busy", "silence"])(
    "that answers CONNECT with %s leaves the request unsent, and mayStart unasked",
    async (refuses) => {
      const server = await startSecureServer();
      await using proxy = await startHttpProxy(server.port);
      proxy.refuses = refuses;
      const client = clientOf("https://crm.test", {
        tls: { ca: tlsPem.ca },
        proxy: proxy.url,
        timeoutMs: 500,
      });
      const asked: string[] = [];
      const failure = await failureOf(client.send(post({ mayStart: () => void asked.push("mayStart") })));
      expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
      expect(asked).toEqual([]);
      expect(server.requests).toHaveLength(0);
      proxy.refuses = undefined;
      expect((await client.send(post())).status).toBe(200);
    },
  );

  test("that can't be reached leaves the request unsent", async () => {
    const gone = await startHttpProxy(1);
    await gone[Symbol.asyncDispose]();
    for (const origin of ["https://crm.test", "http://crm.test"]) {
      const failure = await failureOf(clientOf(origin, { proxy: gone.url }).send(post()));
      expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    }
  });

  test("is asked for the whole URL of an http upstream", async () => {
    await using upstream = await startScriptedUpstream();
    await using proxy = await startHttpProxy(upstream.port);
    const client = clientOf("http://crm.test:8080", { proxy: proxy.url.replace("//", "//a:b@") });
    const answer = await client.send(post({ path: "/activities", body: '{"minutes":45}' }));
    expect(answer.status).toBe(201);
    expect(proxy.asked).toEqual(["POST http://crm.test:8080/activities"]);
    expect(proxy.shown).toEqual([`Basic ${Buffer.from("a:b").toString("base64")}`]);
    expect(upstream.requests[0]!.headers["host"]).toBe("crm.test:8080");
  });

  test("whose tunnel breaks under a request that was written leaves it ambiguous", async () => {
    const server = await startSecureServer();
    await using proxy = await startHttpProxy(server.port);
    const client = clientOf("https://crm.test", { tls: { ca: tlsPem.ca }, proxy: proxy.url, timeoutMs: 300 });
    await client.send(post());
    const mayStart = (): void => void proxy[Symbol.asyncDispose]();
    expect((await failureOf(client.send(post({ mayStart })))).certainty).toBe("ambiguous");
  });
});
