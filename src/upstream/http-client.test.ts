import { setTimeout as wait } from "node:timers/promises";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";

import { describe, expect, onTestFinished, test } from "vitest";

import { startRawServer } from "../../test/fixtures/raw-server.ts";
import { faults, type Fault } from "../../test/fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../../test/fixtures/scripted-upstream.ts";
import { UpstreamError } from "./connector.ts";
import { openHttpClient, type HttpClient, type HttpClientOptions, type HttpRequest } from "./http-client.ts";

const OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

function clientOf(origin: string, options: Partial<HttpClientOptions> = {}): HttpClient {
  const client = openHttpClient(origin, { connections: 1, timeoutMs: 10_000, ...options });
  onTestFinished(() => client.close());
  return client;
}

function post(body = '{"minutes":45}', rest: Partial<HttpRequest> = {}): HttpRequest {
  return {
    method: "POST",
    path: "/activities",
    headers: ["content-type", "application/json"],
    body,
    ...rest,
  };
}

async function failureOf(call: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

test("the body reaches the upstream byte for byte, with its length", async () => {
  await using upstream = await startScriptedUpstream();
  const body = '{ "big": 9007199254740993, "nul": "\\u0000", "lone": "\\ud800", "æ": "🙂",\n "z":1,"a":[ ] }';
  const answer = await clientOf(upstream.url).send(post(body));
  expect(answer.status).toBe(201);
  expect(upstream.requests[0]!.body).toEqual(Buffer.from(body));
  expect(upstream.requests[0]!.headers["content-length"]).toBe(String(Buffer.byteLength(body)));
});

describe("a call that may not start", () => {
  test("leaves nothing on the socket, and the connection to the next call", async () => {
    await using server = await startRawServer((socket) => socket.write(OK));
    const client = clientOf(`http://127.0.0.1:${server.port}`);
    const expired = new Error("the lease is over");
    const mayStart = (): void => {
      throw expired;
    };
    const failure = await failureOf(client.send(post("first", { mayStart })));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    await client.send(post("second"));
    const failed = await failureOf(client.send(post("third", { mayStart })));
    expect(failed.certainty).toBe("not-sent");
    await client.send(post("fourth"));
    expect(server.received).toHaveLength(1);
    const bytes = Buffer.concat(server.received[0]!).toString();
    expect(bytes.match(/POST/g)).toHaveLength(2);
    expect(bytes).not.toMatch(/first|third/);
  });

  test("is asked only once the socket is its own", async () => {
    await using upstream = await startScriptedUpstream();
    const { promise, resolve } = Promise.withResolvers<void>();
    upstream.script({}, faults.hold(promise));
    const client = clientOf(upstream.url);
    const asked: string[] = [];
    const calls = ["a", "b"].map((name) =>
      client.send(post("{}", { mayStart: () => void asked.push(name) })),
    );
    await upstream.received({});
    expect(asked).toEqual(["a"]);
    resolve();
    await Promise.all(calls);
    expect(asked).toEqual(["a", "b"]);
  });
});

describe("a call that never reached the upstream is not ambiguous", () => {
  test("when the connection is refused", async () => {
    const upstream = await startScriptedUpstream();
    await upstream.stop();
    const failure = await failureOf(clientOf(upstream.url).send(post()));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    expect(failure.message).toContain("ECONNREFUSED");
  });

  test("when the name does not resolve", async () => {
    const failure = await failureOf(clientOf("http://upstream.invalid").send(post()));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
  });

  test("when TLS meets a port that speaks plain HTTP", async () => {
    await using upstream = await startScriptedUpstream();
    const failure = await failureOf(clientOf(upstream.url.replace("http:", "https:")).send(post()));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    expect(upstream.requests).toEqual([]);
  });

  test("when the TLS handshake never ends", async () => {
    await using server = await startRawServer(() => undefined);
    const client = clientOf(`https://127.0.0.1:${server.port}`, { timeoutMs: 200 });
    expect(await failureOf(client.send(post()))).toMatchObject({
      certainty: "not-sent",
      disposition: "retry",
    });
  });

  test("when the caller stops it while it waits for a socket", async () => {
    await using upstream = await startScriptedUpstream();
    const { promise, resolve } = Promise.withResolvers<void>();
    upstream.script({}, faults.hold(promise));
    const client = clientOf(upstream.url);
    const first = client.send(post());
    await upstream.received({});
    const stop = new AbortController();
    const second = client.send(post("{}", { signal: stop.signal }));
    stop.abort();
    expect(await failureOf(second)).toMatchObject({ certainty: "not-sent" });
    resolve();
    await first;
    await client.send(post());
    expect(upstream.requests).toHaveLength(2);
  });

  test("when its headers can't be sent, which no retry cures", async () => {
    await using upstream = await startScriptedUpstream();
    const request = post("{}", { headers: ["x-version", "a\r\nb"] });
    expect(await failureOf(clientOf(upstream.url).send(request))).toMatchObject({
      certainty: "not-sent",
      disposition: "park",
    });
  });
});

describe("a call whose bytes were written and whose answer is unusable is ambiguous", () => {
  const cases: Record<string, { fault: Fault; effects: number; options?: Partial<HttpClientOptions> }> = {
    "reset before the effect": { fault: faults.loseRequest(), effects: 0 },
    "reset after the effect": { fault: faults.loseReply(), effects: 1 },
    "closed without an answer": { fault: faults.closeWithoutReply(), effects: 1 },
    "the answer's head breaks off": { fault: faults.truncateHead(), effects: 1 },
    "the answer's body breaks off": { fault: faults.truncate(), effects: 1 },
    "no answer ever": { fault: faults.hang(), effects: 1, options: { timeoutMs: 200 } },
    "an answer that trickles past the deadline": {
      fault: faults.trickle(50),
      effects: 1,
      options: { timeoutMs: 300 },
    },
    "an answer over the limit": {
      fault: faults.hold(Promise.resolve()),
      effects: 1,
      options: { answerBytesMax: 8 },
    },
  };
  test.for(Object.entries(cases))("%s", async ([, { fault, effects, options = {} }]) => {
    await using upstream = await startScriptedUpstream();
    upstream.script({}, fault);
    const failure = await failureOf(clientOf(upstream.url, options).send(post()));
    expect(failure).toMatchObject({ certainty: "ambiguous", disposition: "retry" });
    expect(upstream.requests).toHaveLength(1);
    expect(upstream.effects).toHaveLength(effects);
  });

  test("an answer that is not HTTP", async () => {
    await using server = await startRawServer((socket) => socket.write("220 mail.example ESMTP\r\n"));
    const failure = await failureOf(clientOf(`http://127.0.0.1:${server.port}`).send(post()));
    expect(failure).toMatchObject({ certainty: "ambiguous", disposition: "retry" });
    expect(failure.cause).toBeUndefined();
  });

  test("the caller stops it on the way", async () => {
    await using upstream = await startScriptedUpstream();
    upstream.script({}, faults.hang());
    const stop = new AbortController();
    const call = clientOf(upstream.url).send(post("{}", { signal: stop.signal }));
    await upstream.received({});
    stop.abort();
    expect(await failureOf(call)).toMatchObject({ certainty: "ambiguous" });
  });

  test("the pool is closed while it is on the wire; one that waits was not sent", async () => {
    await using upstream = await startScriptedUpstream();
    upstream.script({}, faults.hang());
    const client = clientOf(upstream.url);
    const calls = [failureOf(client.send(post())), failureOf(client.send(post()))];
    await upstream.received({});
    await client.close();
    expect((await Promise.all(calls)).map(({ certainty }) => certainty)).toEqual(["ambiguous", "not-sent"]);
  });
});

describe("nothing is ever sent a second time by itself", () => {
  test.for(["POST", "GET"])("%s on a kept connection that dies under it", async (method) => {
    await using server = await startRawServer((socket, _text, connection) => {
      if (server.received[connection]!.length === 1) socket.write(OK);
      else socket.resetAndDestroy();
    });
    const client = clientOf(`http://127.0.0.1:${server.port}`);
    const request: HttpRequest = { method, path: "/", headers: [] };
    await client.send(request);
    const failure = await failureOf(client.send(request));
    expect(failure.certainty).toBe("ambiguous");
    expect(server.received.map((chunks) => chunks.length)).toEqual([2]);
  });

  test("a kept connection that the upstream has closed meanwhile is replaced, not written to", async () => {
    const closed = Promise.withResolvers<void>();
    await using server = await startRawServer((socket) => {
      socket.on("close", () => closed.resolve());
      socket.write(OK, () => socket.end());
    });
    const client = clientOf(`http://127.0.0.1:${server.port}`);
    await client.send(post());
    await closed.promise;
    await client.send(post());
    expect(server.received.map((chunks) => chunks.length)).toEqual([1, 1]);
  });
});

test("an answer's status counts although its body breaks off", async () => {
  const head = "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 100\r\n\r\n";
  await using server = await startRawServer((socket) => void socket.end(`${head}{"minutes":"negative"`));
  const answer = await clientOf(`http://127.0.0.1:${server.port}`).send(post());
  expect(answer.status).toBe(422);
  expect(answer.body.toString()).toBe('{"minutes":"negative"');
});

test("interim answers are passed over", async () => {
  await using server = await startRawServer((socket) =>
    socket.write(`HTTP/1.1 103 Early Hints\r\n\r\n${OK}`),
  );
  expect((await clientOf(`http://127.0.0.1:${server.port}`).send(post())).status).toBe(200);
});

test("a redirect is an answer and is not followed", async () => {
  await using upstream = await startScriptedUpstream();
  upstream.script({}, faults.status(307, { headers: { location: "/elsewhere" } }));
  expect((await clientOf(upstream.url).send(post())).status).toBe(307);
  expect(upstream.requests).toHaveLength(1);
});

test("waiting for a socket does not use up the deadline", async () => {
  await using upstream = await startScriptedUpstream();
  upstream.script({}, faults.hang());
  const client = clientOf(upstream.url, { timeoutMs: 500 });
  const [first, second] = await Promise.allSettled([client.send(post()), client.send(post())]);
  expect(first).toMatchObject({ status: "rejected", reason: { certainty: "ambiguous" } });
  expect(second).toMatchObject({ status: "fulfilled", value: { status: 201 } });
});

test("an answer that came while this process was busy past the deadline is read", async () => {
  await using server = await startRawServer((socket) => {
    socket.write(OK);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  });
  const client = clientOf(`http://127.0.0.1:${server.port}`, { timeoutMs: 100 });
  expect((await client.send(post())).status).toBe(200);
});

test("calls beyond the connections wait for one", async () => {
  let inFlight = 0;
  let most = 0;
  await using upstream = await startScriptedUpstream();
  upstream.always({}, async ({ apply, send }) => {
    most = Math.max(most, ++inFlight);
    await wait(5);
    inFlight--;
    send(apply());
  });
  const client = clientOf(upstream.url, { connections: 3 });
  await Promise.all(Array.from({ length: 20 }, () => client.send(post())));
  expect(most).toBe(3);
});

async function answered(coding: string, body: Buffer, status = 200): Promise<HttpClient> {
  const upstream = await startScriptedUpstream();
  onTestFinished(async () => await upstream.stop());
  upstream.always({}, ({ response }) => {
    response.writeHead(status, { "content-encoding": coding }).end(body);
  });
  return clientOf(upstream.url, { answerBytesMax: 1_000_000 });
}

describe("an answer in a coding that nobody asked for", () => {
  const text = '{"id":7,"note":"blåbær"}';

  test.each([
    ["gzip", gzipSync(text)],
    ["X-GZIP", gzipSync(text)],
    ["deflate", deflateSync(text)],
    ["br", brotliCompressSync(text)],
    ["identity", Buffer.from(text)],
  ])("%s is read", async (coding, body) => {
    expect((await (await answered(coding, body)).send(post())).body.toString()).toBe(text);
  });

  test.each([
    ["a bomb", "gzip", gzipSync(Buffer.alloc(50_000_000))],
    ["cut short", "gzip", gzipSync(text).subarray(0, 20)],
    ["in two codings", "gzip, br", gzipSync(text)],
    ["in one that nobody knows", "dcb", Buffer.from(text)],
  ])("%s is ambiguous after a success, and a failure keeps its status", async (_, coding, body) => {
    const failure = await failureOf((await answered(coding, body)).send(post()));
    expect(failure).toMatchObject({ certainty: "ambiguous", disposition: "retry", status: 200 });
    const refused = await (await answered(coding, body, 422)).send(post());
    expect([refused.status, refused.body.length]).toEqual([422, 0]);
  });
});
