import { once } from "node:events";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";

import { Type } from "typebox";
import { expect, test } from "vitest";

import { testServer } from "./gateway.ts";

const bodyBytes = 4 * 1024 * 1024;

async function echo() {
  const server = await testServer({ bodyBytes });
  server.app.post("/echo", async ({ body, bodyText }) => {
    if (bodyText.length > 1000) return {};
    return { text: bodyText, keys: Object.keys(body as object) };
  });
  const url = await server.listen();
  const post = async (body: string | Buffer<ArrayBuffer>, headers: Record<string, string> = {}) => {
    const response = await fetch(`${url}/echo`, {
      method: "POST",
      body,
      headers: { "content-type": "application/json", ...headers },
    });
    return { response, status: response.status, answer: (await response.json()) as Record<string, unknown> };
  };
  return {
    ...server,
    url,
    post,
    gzip: async (body: Buffer<ArrayBuffer>) => await post(body, { "content-encoding": "gzip" }),
  };
}

test("the text of a body is kept as it was sent: large integers, escapes, order, unicode", async () => {
  const { post, gzip } = await echo();
  const text = ' {"b":9007199254740993, "a":"\\u0000\\ud800 é 🙂", "1":null, "":""}\n';
  expect((await post(text)).answer["text"]).toBe(text);
  expect((await gzip(gzipSync(text))).answer["text"]).toBe(text);
});

test("__proto__ and constructor are data like any other field", async () => {
  const { post } = await echo();
  const { status, answer } = await post('{"__proto__":{"admin":true},"constructor":{"prototype":{"x":1}}}');
  expect([status, answer["keys"]]).toEqual([200, ["__proto__", "constructor"]]);
  expect(({} as Record<string, unknown>)["admin"]).toBeUndefined();
});

test.each<[string, string | Buffer<ArrayBuffer>, Record<string, string>, number, string]>([
  ["broken JSON", '{"name":"Kari Nordmann",', {}, 400, "invalid-request"],
  ["nothing", Buffer.alloc(0), {}, 400, "invalid-request"],
  ["invalid UTF-8", Buffer.from([0x22, 0xc3, 0x28, 0x22]), {}, 400, "invalid-request"],
  ["UTF-8 of a surrogate", Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), {}, 400, "invalid-request"],
  ["a byte order mark", "\ufeff{}", {}, 400, "invalid-request"],
  ["UTF-16", Buffer.from("{}", "utf16le"), {}, 400, "invalid-request"],
  [
    "another charset",
    "{}",
    { "content-type": "application/json; charset=iso-8859-1" },
    415,
    "unsupported-media-type",
  ],
  ["another type", "{}", { "content-type": "text/plain" }, 415, "unsupported-media-type"],
  ["another encoding", "{}", { "content-encoding": "br" }, 415, "unsupported-media-type"],
  ["two encodings", "{}", { "content-encoding": "gzip, gzip" }, 415, "unsupported-media-type"],
  ["gzip that is none", "{}", { "content-encoding": "gzip" }, 400, "invalid-request"],
  [
    "gzip cut short",
    gzipSync('{"a":1}').subarray(0, 20),
    { "content-encoding": "gzip" },
    400,
    "invalid-request",
  ],
])("%s is refused with a problem that does not quote it", async (_case, body, headers, status, code) => {
  const { post, log } = await echo();
  const { response, answer, ...rest } = await post(body, headers);
  expect(rest.status).toBe(status);
  expect(response.headers.get("content-type")).toContain("application/problem+json");
  expect(answer).toMatchObject({ type: `urn:tidegate:problem:${code}`, status });
  expect(JSON.stringify(answer) + log.join("")).not.toContain("Kari");
});

test("charset=utf-8 is accepted in any spelling", async () => {
  const { post } = await echo();
  for (const charset of ["utf-8", "UTF-8", '"utf-8"', "utf8"]) {
    expect((await post("{}", { "content-type": `application/json; charset=${charset}` })).status).toBe(200);
  }
});

test("a body of the limit's size passes, one byte more does not, plain and gzip", async () => {
  const { post, gzip } = await echo();
  const exact = `"${"x".repeat(bodyBytes - 2)}"`;
  for (const send of [post, async (text: string) => await gzip(gzipSync(text))]) {
    expect((await send(exact)).status).toBe(200);
    const { status, answer } = await send(`${exact} `);
    expect(status).toBe(413);
    expect(answer).toMatchObject({ type: "urn:tidegate:problem:request-too-large", limits: { bodyBytes } });
  }
});

test("a 10 MB body gets its 413, however it is sent", async () => {
  const { url } = await echo();
  const body = Buffer.alloc(10_000_000, " ");
  const streamed = new ReadableStream({
    start(controller) {
      for (let from = 0; from < body.length; from += 100_000)
        controller.enqueue(body.subarray(from, from + 100_000));
      controller.close();
    },
  });
  for (const sent of [body, streamed]) {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/echo`, { method: "POST", body: sent, headers, duplex: "half" });
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ type: "urn:tidegate:problem:request-too-large" });
  }
});

test("a client that reads only after it has sent 10 MB finds the 413, and the connection still works", async () => {
  const { url } = await echo();
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  const head =
    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n";
  socket.pause();
  socket.write(head);
  await new Promise((resolve) => socket.write(Buffer.alloc(10_000_000, " "), resolve));
  socket.write("GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  let answers = "";
  socket.on("data", (chunk: Buffer) => (answers += chunk.toString()));
  socket.resume();
  await once(socket, "close");
  expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 413", "HTTP/1.1 404"]);
});

test("a gzip bomb costs no more than the limit", async () => {
  const { gzip } = await echo();
  const bomb = gzipSync(Buffer.alloc(512 * 1024 * 1024));
  expect(bomb.length).toBeLessThan(bodyBytes);
  const before = process.memoryUsage().rss;
  const { status, answer } = await gzip(bomb);
  expect([status, answer["type"]]).toEqual([413, "urn:tidegate:problem:request-too-large"]);
  expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024);
});

test("nesting of any depth is answered and breaks nothing", async () => {
  const { post } = await echo();
  const open = "[".repeat(bodyBytes);
  expect((await post(open)).status).toBe(400);
  expect((await post(open.slice(0, bodyBytes / 2) + "]".repeat(bodyBytes / 2))).status).toBe(200);
  expect((await post('{"a":'.repeat(500_000) + "1" + "}".repeat(500_000))).status).toBe(200);
  expect((await post("{}")).status).toBe(200);
});

test("bodies are exact, queries are coerced, and a refusal names the field", async () => {
  const { app, listen } = await testServer();
  const Upload = Type.Object(
    { seq: Type.Integer(), note: Type.Optional(Type.String()) },
    { additionalProperties: false },
  );
  const Query = Type.Object({ limit: Type.Integer({ default: 500, minimum: 1, maximum: 1000 }) });
  app.post("/strict", { schema: { body: Upload, querystring: Query } }, async ({ body, query }) => ({
    body,
    query,
  }));
  const url = await listen();
  const post = async (query: string, body: unknown) => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/strict${query}`, {
      method: "POST",
      body: JSON.stringify(body),
      headers,
    });
    return { status: response.status, answer: (await response.json()) as { errors?: unknown } };
  };
  expect((await post("?limit=7", { seq: 1 })).answer).toEqual({ body: { seq: 1 }, query: { limit: 7 } });
  expect((await post("", { seq: 1 })).answer).toEqual({ body: { seq: 1 }, query: { limit: 500 } });
  const refused: [string, unknown, object][] = [
    ["", { seq: "1" }, { in: "body", pointer: "/seq", detail: "must be integer" }],
    ["", { seq: 1, extra: 1 }, { in: "body", pointer: "", detail: 'unknown field "extra"' }],
    ["", { seq: 1, note: 5 }, { in: "body", pointer: "/note" }],
    [
      "",
      JSON.parse('{"seq":1,"__proto__":{}}'),
      { in: "body", pointer: "", detail: 'unknown field "__proto__"' },
    ],
    ["?limit=abc", { seq: 1 }, { in: "querystring", pointer: "/limit" }],
    ["?limit=1e9", { seq: 1 }, { in: "querystring", pointer: "/limit" }],
    ["?limit=-1", { seq: 1 }, { in: "querystring", pointer: "/limit" }],
  ];
  for (const [query, body, error] of refused) {
    const { status, answer } = await post(query, body);
    expect([status, answer.errors]).toEqual([400, [expect.objectContaining(error)]]);
  }
});
