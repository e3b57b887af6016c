import { once } from "node:events";
import { connect } from "node:net";
import { setImmediate } from "node:timers/promises";
import { gunzipSync } from "node:zlib";

import { expect, test } from "vitest";
import { parse } from "yaml";

import { registerHealth } from "../../src/http/health.ts";
import { registerMetrics } from "../../src/http/metrics.ts";
import { registerOpenapi } from "../../src/http/openapi.ts";
import { errorAnswers } from "../../src/http/problem.ts";
import { TidegateError } from "../../src/platform/errors.ts";
import { createMetrics } from "../../src/platform/metrics.ts";
import { testServer } from "./gateway.ts";

const problemOf = async (response: Response) => (await response.json()) as Record<string, unknown>;

async function raw(url: string, request: string): Promise<string> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  let answer = "";
  socket.on("data", (chunk: Buffer) => (answer += chunk.toString("latin1")));
  socket.end(request);
  await once(socket, "close");
  return answer;
}

test("unknown routes, methods and broken URLs get a problem with the request's ID", async () => {
  const { app, listen } = await testServer();
  app.get("/known/:id", async () => "ok");
  const url = await listen();
  for (const [method, path, status] of [
    ["GET", "/nowhere?token=secret", 404],
    ["PATCH", "/known/1", 404],
    ["GET", "/known/%zz", 400],
    ["GET", `/known/${"x".repeat(300)}`, 400],
  ] as const) {
    const response = await fetch(url + path, { method, headers: { "x-request-id": "upload-7" } });
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toContain("application/problem+json");
    expect(response.headers.get("x-request-id")).toBe("upload-7");
    expect((await problemOf(response))["instance"]).toBe("upload-7");
  }
});

test("a request ID that is not harmless is replaced", async () => {
  const { app, listen } = await testServer();
  app.get("/", async () => "ok");
  const url = await listen();
  for (const id of ["with space", "x".repeat(129), "a/b", "{}"]) {
    const { headers } = await fetch(url, { headers: { "x-request-id": id } });
    expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  }
});

test("what is not HTTP gets a problem too", async () => {
  const { listen } = await testServer();
  const answer = await raw(await listen(), "this is not HTTP\r\n\r\n");
  expect(answer).toMatch(
    /^HTTP\/1\.1 400 [^]*application\/problem\+json[^]*urn:tidegate:problem:invalid-request/,
  );
});

test("behind a request that came whole it cuts the connection: nothing is taken for that one's answer", async () => {
  const { app, listen } = await testServer();
  const { promise: held, resolve: release } = Promise.withResolvers<string>();
  app.get("/held", async () => await held);
  app.get("/begun", async (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200).write("begun");
  });
  const url = await listen();
  const rest = " HTTP/1.1\r\nhost: x\r\n\r\nthis is not HTTP\r\n\r\n";
  expect(await raw(url, `GET /held${rest}`)).toBe("");
  release("");
  expect(await raw(url, `GET /begun${rest}`)).not.toContain("400");
});

test("an unforeseen error is 500 without details, and its stack is in the log", async () => {
  const { app, log, listen } = await testServer();
  app.get("/broken", async () => {
    throw Object.assign(new Error("invariant broken"), { detail: "Key (name)=(Kari)" });
  });
  const response = await fetch(`${await listen()}/broken`);
  const text = await response.text();
  expect(response.status).toBe(500);
  expect(JSON.parse(text)).toMatchObject({ type: "urn:tidegate:problem:internal", status: 500 });
  expect(text).not.toContain("invariant");
  const [line] = log.filter((entry) => entry.includes("invariant broken"));
  expect(line).toContain("server.test.ts");
  expect(log.join("")).not.toContain("Kari");
});

test("a database that can't be reached is 503 with Retry-After", async () => {
  const { app, listen } = await testServer();
  const failures = [
    ...["ECONNREFUSED", "57P01", "57P03", "53300", "08006"].map((code) =>
      Object.assign(new Error("x"), { code }),
    ),
    new Error("Connection terminated unexpectedly"),
    new Error("query failed", { cause: Object.assign(new Error("x"), { code: "57P01" }) }),
  ];
  app.get("/:index", async ({ params }) => {
    throw failures[Number((params as { index: string }).index)] ?? new Error("no such failure");
  });
  const url = await listen();
  for (const index of failures.keys()) {
    const response = await fetch(`${url}/${index}`);
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
    expect((await problemOf(response))["type"]).toBe("urn:tidegate:problem:unavailable");
  }
});

test("further members of an error are members of its problem, but can't replace the standard ones", async () => {
  const { app, listen } = await testServer();
  app.get("/gap", async () => {
    throw new TidegateError("sequence-gap", "A batch is missing.", {
      extensions: { lastSeq: 7, status: 200 },
    });
  });
  const response = await fetch(`${await listen()}/gap`);
  expect(await problemOf(response)).toMatchObject({ status: 409, lastSeq: 7, detail: "A batch is missing." });
});

const getLarge = (encoding: string) =>
  `GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${encoding}\r\n`;

test("answers are compressed when asked, and only then", async () => {
  const { app, listen } = await testServer();
  app.get("/large", async () => ({ text: "x".repeat(5000) }));
  const url = await listen();
  const [head = "", body = ""] = (await raw(url, getLarge("Accept-Encoding: gzip\r\n"))).split("\r\n\r\n");
  expect(head).toMatch(/content-encoding: gzip/i);
  expect(gunzipSync(Buffer.from(body, "latin1")).toString()).toContain("xxxx");
  expect(await raw(url, getLarge(""))).not.toMatch(/content-encoding/i);
});

test("the log has a line for each request, without tokens, cookies, query strings or bodies", async () => {
  const { app, log, listen } = await testServer();
  app.post("/records/:id", async ({ log: line, headers, body, bodyText, raw: req }) => {
    line.info({ headers, body, data: body, req }, "logged by mistake");
    line.info({ nested: { payload: bodyText, authorization: headers.authorization } }, "again");
    return {};
  });
  const url = await listen();
  await fetch(`${url}/records/4711?cursor=SECRET`, {
    method: "POST",
    body: '{"name":"SECRET"}',
    headers: { "content-type": "application/json", authorization: "Bearer SECRET", cookie: "a=SECRET" },
  });
  const lines = () => log.filter((entry) => entry.includes("requestId"));
  await expect.poll(() => lines().length).toBe(3);
  const text = log.join("");
  expect(text).not.toContain("SECRET");
  expect(text).not.toContain("4711");
  const line = JSON.parse(lines()[2] ?? "{}") as Record<string, unknown>;
  expect(line).toMatchObject({
    method: "POST",
    route: "/records/:id",
    status: 200,
    level: "info",
    msg: "request",
  });
  expect(line["requestId"]).toMatch(/^[0-9a-f-]{36}$/);
  expect(line["ms"]).toBeTypeOf("number");
});

test("while stopping, new requests get 503 and requests in flight finish", async () => {
  const { app, stop, listen } = await testServer();
  const release = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  app.get("/slow", async () => {
    arrived.resolve();
    await release.promise;
    return { done: true };
  });
  registerHealth(app, { checks: [], stopping: stop.signal });
  const url = await listen();
  const slow = fetch(`${url}/slow`);
  await arrived.promise;
  stop.abort();
  const refused = await fetch(`${url}/slow`);
  expect(refused.status).toBe(503);
  expect(refused.headers.get("connection")).toBe("close");
  expect(refused.headers.get("retry-after")).toMatch(/^\d+$/);
  expect((await problemOf(refused))["type"]).toBe("urn:tidegate:problem:unavailable");
  expect((await fetch(`${url}/health/live`)).status).toBe(200);
  const ready = await fetch(`${url}/health/ready`);
  expect([ready.status, await ready.json()]).toEqual([503, { status: "stopping", checks: {} }]);
  const closed = app.close();
  await setImmediate();
  release.resolve();
  const finished = await slow;
  expect(finished.headers.get("connection")).toBe("close");
  expect(await finished.json()).toEqual({ done: true });
  await closed;
});

test("a client that does not read its answer can't keep the gateway from stopping", async () => {
  const { app, listen } = await testServer({ drainMs: 50 });
  app.get("/large", async (_request, reply) =>
    reply.type("application/octet-stream").send(Buffer.alloc(64_000_000)),
  );
  const socket = connect(Number(new URL(await listen()).port), "127.0.0.1");
  socket.on("error", () => {});
  socket.write("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(socket, "readable");
  await app.close();
  socket.destroy();
});

test("readiness names the checks that failed or hung, and says why in the log only", async () => {
  const { app, log, stop, listen } = await testServer();
  const checks = [
    { name: "postgres", check: async () => {} },
    { name: "redis", check: async () => Promise.reject(new Error("refused at 10.0.0.7")) },
    { name: "upstream", check: async () => await new Promise<void>(() => {}) },
  ];
  registerHealth(app, { checks, stopping: stop.signal, checkTimeoutMs: 20 });
  const response = await fetch(`${await listen()}/health/ready`);
  const text = await response.text();
  expect(response.status).toBe(503);
  expect(JSON.parse(text)).toEqual({
    status: "not-ready",
    checks: { postgres: "ok", redis: "failed", upstream: "failed" },
  });
  expect(text).not.toContain("10.0.0.7");
  expect(log.join("")).toContain("10.0.0.7");
});

test("metrics count requests by route template and never show a URL", async () => {
  const { app, listen } = await testServer();
  const registry = createMetrics();
  registerMetrics(app, registry);
  app.get("/records/:id", async () => "ok");
  const url = await listen();
  await fetch(`${url}/records/ola-nordmann?cursor=SECRET`);
  await fetch(`${url}/nowhere/kari-nordmann`);
  const response = await fetch(`${url}/metrics`);
  const text = await response.text();
  expect(response.headers.get("content-type")).toContain("text/plain");
  expect(text).toContain(
    'tidegate_http_request_duration_seconds_count{method="GET",route="/records/:id",status="200"} 1',
  );
  expect(text).toContain('{method="any",route="unmatched",status="404"} 1');
  expect(text).toContain("process_cpu_seconds_total");
  expect(text).not.toMatch(/nordmann|SECRET/);
});

test("the API is described as OpenAPI 3.1, and the page that shows it loads nothing from elsewhere", async () => {
  const { app, stop, listen } = await testServer();
  await registerOpenapi(app, { version: "1.2.3" });
  registerHealth(app, { checks: [], stopping: stop.signal });
  const response = errorAnswers("unauthorized", "sequence-gap", "sequence-reused");
  app.get("/v1/things", { schema: { operationId: "things", tags: ["sync"], response } }, async () => {});
  const url = await listen();
  const document = parse(await (await fetch(`${url}/openapi.yaml`)).text());
  expect(document).toMatchObject({
    openapi: "3.1.0",
    info: { version: "1.2.3" },
    security: [{ client: [] }],
  });
  expect(document.paths["/health/live"].get.security).toEqual([]);
  expect(Object.keys(document.paths).toSorted()).toEqual(["/health/live", "/health/ready", "/v1/things"]);
  const { 409: conflict } = document.paths["/v1/things"].get.responses;
  expect(conflict.description).toContain("`sequence-gap`");
  expect(conflict.description).toContain("`sequence-reused`");
  expect(conflict.content["application/problem+json"].schema).toEqual({
    $ref: "#/components/schemas/Problem",
  });
  expect(document.components.schemas.Problem.required).toEqual(["type", "title", "status"]);

  const page = await fetch(`${url}/docs`);
  const html = await page.text();
  expect(page.headers.get("content-security-policy")).toContain("default-src 'self'");
  expect(html).not.toMatch(/(src|href)="(https?:)?\/\//);
  const [, script] = /<script[^>]* src="([^"]+)"/.exec(html) ?? [];
  const loaded = await fetch(new URL(script ?? "", page.url));
  expect([loaded.status, (await loaded.text()).length > 1_000_000]).toEqual([200, true]);
  expect(loaded.headers.get("content-type")).toContain("javascript");
  expect(html).toContain("../openapi.yaml");
});
