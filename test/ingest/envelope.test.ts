import { randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { connectApi, type Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { jwtSecret, startGateway, tempId, tokenFor, type TestGateway } from "../fixtures/gateway.ts";
import { openRowCounter, type RowCounter } from "../fixtures/row-counts.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { signed } from "../fixtures/tokens.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let kari: Api;
let rows: RowCounter;
let before: Record<string, number>;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ role: "api", upstreams: crm(upstream.url) });
  kari = gateway.as();
  rows = await openRowCounter(gateway.database);
});
afterAll(async () => {
  await rows.close();
  await gateway.close();
  await upstream.stop();
});
beforeEach(async () => {
  before = await rows.count();
});
afterEach(async () => {
  expect(await rows.count()).toEqual(before);
  expect(upstream.requests).toEqual([]);
});

const mutation = (rest: object = {}): object => ({
  seq: 1,
  id: randomUUID(),
  entity: "activity",
  op: "create",
  recordId: tempId(),
  data: {},
  ...rest,
});
const batch = (rest: object = {}): object => ({
  clientId: randomUUID(),
  previousSeq: 0,
  mutations: [mutation()],
  ...rest,
});
const withMutation = (rest: object): object => batch({ mutations: [mutation(rest)] });

const invalid: [name: string, body: unknown][] = [
  ["an empty body", ""],
  ["half an object", '{"clientId":'],
  ["a trailing comma", `${JSON.stringify(batch()).slice(0, -1)},}`],
  ["two documents", `${JSON.stringify(batch())}{}`],
  ["NaN", '{"clientId":NaN}'],
  ["null", "null"],
  ["a list", "[]"],
  ["text", '"batch"'],
  ["a clientId that is missing", batch({ clientId: undefined })],
  ["a clientId that is null", batch({ clientId: null })],
  ["a clientId that is a number", batch({ clientId: 7 })],
  ["a clientId that is no UUID", batch({ clientId: "phone" })],
  ["a clientId with a line break behind it", batch({ clientId: `${randomUUID()}\n` })],
  ["a clientId as a URN", batch({ clientId: `urn:uuid:${randomUUID()}` })],
  ["previousSeq missing", batch({ previousSeq: undefined })],
  ["previousSeq as text", batch({ previousSeq: "0" })],
  ["a negative previousSeq", batch({ previousSeq: -1 })],
  ["a broken previousSeq", batch({ previousSeq: 0.5 })],
  ["a previousSeq beyond 2^53 - 1", batch({ previousSeq: 2 ** 53 })],
  ["mutations missing", batch({ mutations: undefined })],
  ["mutations that are no list", batch({ mutations: {} })],
  ["a mutation that is null", batch({ mutations: [null] })],
  ["a mutation that is a list", batch({ mutations: [[]] })],
  ["seq missing", withMutation({ seq: undefined })],
  ["seq 0", withMutation({ seq: 0 })],
  ["a negative seq", withMutation({ seq: -1 })],
  ["a broken seq", withMutation({ seq: 1.5 })],
  ["seq as text", withMutation({ seq: "1" })],
  ["seq beyond 2^53 - 1", withMutation({ seq: 2 ** 53 })],
  ["an endless seq", JSON.stringify(batch()).replace('"seq":1', '"seq":1e400')],
  ["id missing", withMutation({ id: undefined })],
  ["an id that is no UUID", withMutation({ id: "1" })],
  ["an id that is a number", withMutation({ id: 1 })],
  ["an id with NUL", withMutation({ id: `${randomUUID()}\0` })],
  ["the same seq twice", batch({ mutations: [mutation(), mutation()] })],
  ["a seq that falls", batch({ mutations: [mutation({ seq: 2 }), mutation({ seq: 1 })] })],
  ["lostThrough at a seq that is sent", batch({ lostThrough: 1 })],
  ["a negative lostThrough", batch({ lostThrough: -1 })],
  ["sentAt that is no text", batch({ sentAt: 5 })],
  ["an unknown field", batch({ clientid: randomUUID() })],
  ["an unknown field of a mutation", withMutation({ record: "1" })],
  ["a mutation that calls itself rejected", withMutation({ rejected: true })],
  ["__proto__ in the envelope", JSON.stringify(batch()).replace("{", '{"__proto__":{"clientId":"1"},')],
  ["constructor in a mutation", withMutation({ constructor: {} })],
];

test.each(invalid)("%s fails the batch with 400 and changes nothing", async (_name, body) => {
  const { status, headers, body: problem } = await kari.post("/v1/batches", body);
  expect(headers.get("content-type")).toMatch("application/problem+json");
  expect([status, problem.type]).toEqual([400, "urn:tidegate:problem:invalid-request"]);
});

const raw = async (body: Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}): Promise<Response> =>
  await fetch(`${gateway.url}/v1/batches`, {
    method: "POST",
    body,
    headers: { authorization: `Bearer ${tokenFor({})}`, "content-type": "application/json", ...headers },
  });

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

const unreadable: [
  name: string,
  status: number,
  body: Uint8Array<ArrayBuffer>,
  headers: Record<string, string>,
][] = [
  ["text that is not UTF-8", 400, Uint8Array.of(0x22, 0xff, 0x22), {}],
  ["a byte order mark", 400, bytes(`\ufeff${JSON.stringify(batch())}`), {}],
  [
    "half of a gzip body",
    400,
    new Uint8Array(gzipSync(JSON.stringify(batch())).subarray(0, 40)),
    { "content-encoding": "gzip" },
  ],
  ["an unknown encoding", 415, bytes("{}"), { "content-encoding": "br" }],
  ["another media type", 415, bytes("{}"), { "content-type": "text/plain" }],
  ["another charset", 415, bytes("{}"), { "content-type": "application/json; charset=utf-16" }],
];

test.each(unreadable)("%s is refused with %i and changes nothing", async (_name, status, body, headers) => {
  const answer = await raw(body, headers);
  expect(answer.status).toBe(status);
  expect(answer.headers.get("content-type")).toMatch("application/problem+json");
});

describe("what is too large is refused with 413, tells the limits, and changes nothing:", () => {
  const limits = { mutations: 500, bodyBytes: 4_194_304, mutationBytes: 262_144, depth: 64 };

  test("a batch of 501 mutations", async () => {
    const mutations = Array.from({ length: 501 }, (_, index) => mutation({ seq: index + 1 }));
    const { status, body } = await kari.post("/v1/batches", batch({ mutations }));
    expect([status, body.type]).toEqual([413, "urn:tidegate:problem:request-too-large"]);
    expect(body.limits).toMatchObject(limits);
  });

  test("a body of 10 MB", async () => {
    const data = { note: "x".repeat(10_000_000) };
    const { status, body } = await kari.post("/v1/batches", withMutation({ data }));
    expect([status, body.limits]).toEqual([413, expect.objectContaining(limits)]);
  });

  test("a gzip bomb", async () => {
    const bomb = gzipSync(Buffer.alloc(200_000_000, " "));
    expect(bomb.length).toBeLessThan(limits.bodyBytes);
    const answer = await raw(new Uint8Array(bomb), { "content-encoding": "gzip" });
    expect([answer.status, await answer.json()]).toEqual([
      413,
      expect.objectContaining({ limits: expect.objectContaining(limits) }),
    ]);
  });
});

const reads = [
  ...["0", "-1", "1001", "1.5", "1e9", "abc", "NaN", "", "1&limit=2"].map(
    (limit) => `/v1/changes?limit=${limit}`,
  ),
  ...["-1", "26", "1e3", "0.5", "forever", ""].map((wait) => `/v1/changes?wait=${wait}`),
  ...["phone", `urn:uuid:${randomUUID()}`, ""].map((clientId) => `/v1/changes?clientId=${clientId}`),
  "/v1/changes?after=1",
  "/v1/mutations",
  `/v1/mutations?clientId=urn:uuid:${randomUUID()}`,
  ...["-1", "1.5", "9007199254740992", "x"].map(
    (seq) => `/v1/mutations?clientId=${randomUUID()}&afterSeq=${seq}`,
  ),
  ...["0", "1001", "x"].map((limit) => `/v1/mutations?clientId=${randomUUID()}&limit=${limit}`),
  "/v1/mutations/1",
  `/v1/mutations/urn:uuid:${randomUUID()}`,
  "/v1/id-mappings",
  "/v1/id-mappings?clientId=phone",
];

test.each(reads)("a read with absurd parameters gets 400: %s", async (path) => {
  const { status, body } = await kari.get(path);
  expect([status, body.type]).toEqual([400, "urn:tidegate:problem:invalid-request"]);
});

const nowSeconds = Math.floor(Date.now() / 1_000);
const claims = { iss: "test", aud: "tidegate", sub: "kari", exp: nowSeconds + 600 };
const forged: [name: string, token: string | undefined][] = [
  ["no token", undefined],
  ["no JWT", "kari"],
  ["an unsigned one", signed(claims, { alg: "none", secret: undefined })],
  ["one signed with another secret", signed(claims, { alg: "HS256", secret: "guessed" })],
  ["one with another algorithm", signed(claims, { alg: "HS512", secret: jwtSecret })],
  [
    "one of another tenant's issuer",
    signed({ ...claims, iss: "other" }, { alg: "HS256", secret: jwtSecret }),
  ],
  ["an expired one", signed({ ...claims, exp: nowSeconds - 60 }, { alg: "HS256", secret: jwtSecret })],
  [
    "one that is not valid yet",
    signed({ ...claims, nbf: nowSeconds + 3_600 }, { alg: "HS256", secret: jwtSecret }),
  ],
  ["one for another audience", signed({ ...claims, aud: "crm" }, { alg: "HS256", secret: jwtSecret })],
  ["one without a user", signed({ ...claims, sub: undefined }, { alg: "HS256", secret: jwtSecret })],
];

test.each(forged)(
  "a token that can't be trusted gets 401 on every route and changes nothing: %s",
  async (_name, token) => {
    const api = connectApi(gateway.url, {}, token);
    const answers = [
      await api.post("/v1/batches", batch()),
      await api.get("/v1/changes"),
      await api.get(`/v1/mutations?clientId=${randomUUID()}`),
      await api.get(`/v1/mutations/${randomUUID()}`),
      await api.get(`/v1/id-mappings?clientId=${randomUUID()}`),
      await api.get("/v1/capabilities"),
    ];
    expect(answers.map(({ status, body }) => [status, body.type])).toEqual(
      answers.map(() => [401, "urn:tidegate:problem:unauthorized"]),
    );
  },
);
