import { createHmac } from "node:crypto";
import { fileURLToPath } from "node:url";

import { describe, expect, onTestFinished, test, vi } from "vitest";

import { faults } from "../../../test/fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { startTokenServer, type TokenServer } from "../../../test/fixtures/token-server.ts";
import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { UpstreamError } from "../connector.ts";
import type { OAuth2 } from "./oauth2.ts";
import { openSession, type Session } from "./session.ts";

const post = { method: "POST", path: "/activities", body: '{"minutes":45}' };
const call = { entity: "activity" };

async function setup(
  config: Partial<UpstreamConfig> = {},
): Promise<{ upstream: ScriptedUpstream; session: Session }> {
  const upstream = await startScriptedUpstream();
  const session = openSession(aRestUpstream(upstream.url, config));
  onTestFinished(async () => {
    await session.close();
    await upstream.stop();
  });
  return { upstream, session };
}

async function withTokens(
  auth: Partial<OAuth2> = {},
  config: Partial<UpstreamConfig> = {},
): Promise<{ upstream: ScriptedUpstream; session: Session; tokens: TokenServer }> {
  const tokens = await startTokenServer();
  onTestFinished(() => tokens[Symbol.asyncDispose]());
  const oauth2 = {
    type: "oauth2ClientCredentials",
    tokenUrl: tokens.url,
    clientId: "gate:way",
    clientSecret: "s e%cret",
    ...auth,
  } as const;
  return { tokens, ...(await setup({ auth: oauth2, ...config })) };
}

async function failureOf(work: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await work.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

function stopTheClock(): void {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
}

const hook = (name: string): string =>
  fileURLToPath(new URL(`../../../test/fixtures/hooks/${name}.ts`, import.meta.url));

const shownTo = ({ requests }: ScriptedUpstream): unknown[] =>
  requests.map(({ headers }) => headers["authorization"]);

test("a call's own headers count more than the configured ones, and who we are more than both", async () => {
  const { upstream, session } = await setup({
    auth: { type: "apiKey", header: "X-Key", key: "k" },
    headers: { "Content-Type": "application/a", Accept: "application/a", "x-key": "wrong" },
  });
  await session.send(call, { ...post, headers: ["content-type", "application/b", "X-Key", "wrong"] });
  expect(upstream.requests[0]!.headers).toMatchObject({
    "content-type": "application/b",
    accept: "application/a",
    "x-key": "k",
  });
});

describe("access tokens", () => {
  test("are asked for with the client's ID and secret, and one serves many calls", async () => {
    const { upstream, session, tokens } = await withTokens({
      scope: "write",
      parameters: { audience: "https://crm.example" },
    });
    await Promise.all([session.send(call, post), session.send(call, post), session.send(call, post)]);
    await session.send(call, post);
    expect(shownTo(upstream)).toEqual(Array.from({ length: 4 }, () => "Bearer token-1"));
    expect(tokens.asked).toEqual([
      {
        form: { grant_type: "client_credentials", scope: "write", audience: "https://crm.example" },
        authorization: `Basic ${Buffer.from("gate%3Away:s+e%25cret").toString("base64")}`,
      },
    ]);
  });

  test("are asked for with the secret in the body where that is configured", async () => {
    const { session, tokens } = await withTokens({ clientAuth: "body" });
    await session.send(call, post);
    expect(tokens.asked).toEqual([
      {
        form: { grant_type: "client_credentials", client_id: "gate:way", client_secret: "s e%cret" },
        authorization: undefined,
      },
    ]);
  });

  test("are renewed before they end", async () => {
    stopTheClock();
    const { upstream, session } = await withTokens();
    await session.send(call, post);
    vi.advanceTimersByTime(3_539_000);
    await session.send(call, post);
    vi.advanceTimersByTime(2_000);
    await session.send(call, post);
    expect(shownTo(upstream)).toEqual(["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
  });

  test("a 401 is answered with another token, once, and mayStart is asked for each request", async () => {
    const { upstream, session } = await withTokens();
    await session.send(call, post);
    upstream.script({}, faults.status(401));
    const asked: string[] = [];
    const statuses: number[] = [];
    const watched = {
      ...call,
      mayStart: () => void asked.push("mayStart"),
      onStatus: (status: number) => void statuses.push(status),
    };
    expect((await session.send(watched, post)).status).toBe(201);
    expect(shownTo(upstream)).toEqual(["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
    expect(upstream.effects).toHaveLength(2);
    expect(asked).toHaveLength(2);
    expect(statuses).toEqual([201]);
    upstream.script({}, faults.status(401), faults.status(401));
    expect((await session.send(call, post)).status).toBe(401);
    expect(upstream.requests).toHaveLength(5);
  });

  test("several calls that are refused at once need one further token", async () => {
    const { upstream, session, tokens } = await withTokens();
    await session.send(call, post);
    upstream.script({}, faults.status(401), faults.status(401), faults.status(401));
    await Promise.all([session.send(call, post), session.send(call, post), session.send(call, post)]);
    expect(tokens.given).toHaveLength(2);
    expect(upstream.effects).toHaveLength(4);
  });

  test("a 401 that the configuration reads otherwise, or without tokens, is no reason to send again", async () => {
    const overridden = await withTokens({}, { statuses: { 401: "reject" } });
    overridden.upstream.script({}, faults.status(401));
    expect((await overridden.session.send(call, post)).status).toBe(401);
    const { upstream, session } = await setup({ auth: { type: "bearer", token: "t" } });
    upstream.script({}, faults.status(401));
    expect((await session.send(call, post)).status).toBe(401);
    expect([...overridden.upstream.requests, ...upstream.requests]).toHaveLength(2);
  });

  test.for([
    ["an error", { status: 400, body: '{"error":"invalid_client","secret":"s e%cret"}' }, "(invalid_client)"],
    ["a failure of its own", { status: 503, body: "s e%cret", headers: { "retry-after": "7" } }, "503"],
    ["no token", { status: 200, body: '{"access_token":5}' }, "without a token"],
    ["no JSON", { status: 200, body: "<html>" }, "without a token"],
    ["another type of token", { status: 200, body: '{"access_token":"t","token_type":"mac"}' }, "type"],
    ["a redirect", { status: 302, body: "", headers: { location: "/" } }, "302"],
  ] as const)("an endpoint that answers with %s is the whole's failure, and nothing is sent", async (row) => {
    const [, fails, words] = row;
    const { upstream, session, tokens } = await withTokens();
    tokens.fails = fails;
    const asked: string[] = [];
    const failure = await failureOf(
      session.send({ ...call, mayStart: () => void asked.push("mayStart") }, post),
    );
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry", systemic: true });
    expect(failure.message).toContain(words);
    expect(JSON.stringify([failure, failure.message])).not.toContain("s e%cret");
    expect(failure.retryAfterMs).toBe(fails.status === 503 ? 7000 : undefined);
    expect([asked, upstream.requests]).toEqual([[], []]);
    tokens.fails = undefined;
    expect((await session.send(call, post)).status).toBe(201);
  });

  test("an endpoint that can't be reached, or never answers, leaves the call unsent", async () => {
    const away = await withTokens();
    await away.tokens[Symbol.asyncDispose]();
    expect(await failureOf(away.session.send(call, post))).toMatchObject({ certainty: "not-sent" });
    const mute = await withTokens({}, { timeoutMs: 200 });
    mute.tokens.gate = new Promise(() => undefined);
    const failure = await failureOf(mute.session.send(call, post));
    expect(failure).toMatchObject({ certainty: "not-sent", systemic: true });
    expect(mute.upstream.requests).toHaveLength(0);
  });

  test("a token that is still good serves on while the endpoint fails, which is not asked at each call", async () => {
    stopTheClock();
    const { upstream, session, tokens } = await withTokens();
    await session.send(call, post);
    tokens.fails = { status: 500, body: "" };
    vi.advanceTimersByTime(3_550_000);
    await session.send(call, post);
    await session.send(call, post);
    expect(tokens.asked).toHaveLength(2);
    expect(shownTo(upstream)).toEqual(Array.from({ length: 3 }, () => "Bearer token-1"));
    vi.advanceTimersByTime(51_000);
    expect(await failureOf(session.send(call, post))).toMatchObject({ certainty: "not-sent" });
    expect(upstream.requests).toHaveLength(3);
  });

  test("a caller that gives up while waiting for a token leaves it to the others", async () => {
    const { upstream, session, tokens } = await withTokens();
    const { promise, resolve } = Promise.withResolvers<void>();
    tokens.gate = promise;
    const stop = new AbortController();
    const stopped = session.send({ ...call, signal: stop.signal }, post);
    const other = session.send(call, post);
    stop.abort();
    expect(await failureOf(stopped)).toMatchObject({ certainty: "not-sent", systemic: false });
    resolve();
    expect((await other).status).toBe(201);
    expect(tokens.given).toHaveLength(1);
    expect(upstream.requests).toHaveLength(1);
  });
});

describe("a signing hook", () => {
  test("signs exactly what is sent, and again when it is sent again", async () => {
    const { upstream, session } = await withTokens({}, { sign: hook("hmac") });
    upstream.script({}, faults.status(401));
    await session.send({ ...call, requestId: "r-1" }, post);
    const signed = ["POST", `${upstream.url}/activities`, "r-1", post.body].join("\n");
    const signature = createHmac("sha256", "a key").update(signed).digest("hex");
    expect(upstream.requests.map(({ headers }) => headers["x-signature"])).toEqual([signature, signature]);
    expect(upstream.requests[0]!.body.toString()).toBe(post.body);
  });

  test.for(["throws", "hangs", "number", "breaks a line"])(
    "that %s leaves the call unsent",
    async (requestId) => {
      const { upstream, session } = await setup({ sign: hook("faulty"), timeoutMs: 200 });
      const failure = await failureOf(session.send({ ...call, requestId }, post));
      expect(failure.certainty).toBe("not-sent");
      expect(failure.message).not.toContain("abc");
      expect(upstream.requests).toHaveLength(0);
    },
  );

  test("that exports no function can't be opened", () => {
    expect(() => openSession(aRestUpstream("http://crm", { sign: hook("none") }))).toThrow("no function");
  });
});
