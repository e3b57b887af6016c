import { generateKeyPairSync } from "node:crypto";

import { expect, test } from "vitest";

import { registerClientAuth } from "../../src/http/client-auth.ts";
import type { JwksOptions } from "../../src/http/jwks.ts";
import type { TenantAuth } from "../../src/platform/config/schema.ts";
import { inSeconds, keyEndpoint, testServer, token, unsigned } from "./gateway.ts";

const secret = "a secret of the tenant hlf that is long enough";
const issuer = "https://id.hlf.example";
const hlf: TenantAuth = {
  issuer,
  audience: "tidegate",
  algorithm: "HS256",
  secret,
  scopes: ["org", "user:{sub}", "group:{groups}"],
  roles: "roles",
};
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const otherRsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const ed = generateKeyPairSync("ed25519");

const claims = (more: Record<string, unknown> = {}) => ({
  iss: issuer,
  aud: "tidegate",
  sub: "ida",
  exp: inSeconds(600),
  ...more,
});

async function gateway(tenants: Record<string, TenantAuth>, jwks: JwksOptions = {}) {
  const server = await testServer();
  const auths = Object.fromEntries(Object.entries(tenants).map(([id, auth]) => [id, { auth }]));
  const requireClient = await registerClientAuth(server.app, { tenants: auths, jwks });
  server.app.get("/who", { onRequest: requireClient }, async ({ identity }) => identity);
  const url = await server.listen();
  const ask = async (authorization?: string) => {
    const response = await fetch(
      `${url}/who`,
      authorization === undefined ? {} : { headers: { authorization } },
    );
    return { response, status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  return { ...server, ask, withToken: async (jwt: string) => await ask(`Bearer ${jwt}`) };
}

async function withKeys(
  algorithm: "RS256" | "ES256" | "EdDSA",
  keys: object[],
  jwks: JwksOptions = { cooldownMs: 0 },
) {
  const endpoint = await keyEndpoint();
  endpoint.keys = keys;
  const { secret: _, ...rules } = hlf;
  return { endpoint, ...(await gateway({ hlf: { ...rules, algorithm, jwksUri: endpoint.uri } }, jwks)) };
}

const jwk = (pair: { publicKey: typeof rsa.publicKey }, kid: string) => ({
  ...pair.publicKey.export({ format: "jwk" }),
  kid,
});

test("a valid token gives tenant, user, scopes from single and list claims, and roles", async () => {
  const { withToken } = await gateway({ hlf });
  const exp = inSeconds(600);
  const { status, body } = await withToken(
    token(claims({ exp, groups: ["oslo", "bergen", "oslo"], roles: ["mentor", "coordinator"] }), { secret }),
  );
  expect(status).toBe(200);
  expect(body).toEqual({
    tenantId: "hlf",
    userId: "ida",
    scopes: ["group:bergen", "group:oslo", "org", "user:ida"],
    roles: ["coordinator", "mentor"],
    expiresAtMs: (exp + 30) * 1000,
  });
});

test("scopes and roles ignore missing, nested, empty, overlong and NUL values", async () => {
  const { withToken } = await gateway({
    hlf: { ...hlf, scopes: ["user:{sub}", "group:{groups}", "x:{nested}"] },
  });
  const groups = ["a\0b", "x".repeat(256), "", null, { a: 1 }, ["deep"], true, 7, "\ud800", "y".repeat(255)];
  const { body } = await withToken(token(claims({ groups, nested: { groups: ["b"] } }), { secret }));
  expect(body["scopes"]).toEqual(["group:7", `group:${"y".repeat(255)}`, "user:ida"]);
  expect(body["roles"]).toEqual([]);
});

test("names that every object inherits are no claims", async () => {
  const { withToken } = await gateway({
    hlf: { ...hlf, scopes: ["org", "x:{constructor}", "y:{__proto__}"] },
  });
  const { body } = await withToken(token(claims(), { secret }));
  expect(body["scopes"]).toEqual(["org"]);
});

test.each<[string, () => string]>([
  ["forged with another secret", () => token(claims(), { secret: "another secret" })],
  ["expired beyond the skew", () => token(claims({ exp: inSeconds(-40) }), { secret })],
  ["without exp", () => token(claims({ exp: undefined }), { secret })],
  ["whose exp is text", () => token(claims({ exp: "9999999999" }), { secret })],
  ["not valid yet", () => token(claims({ nbf: inSeconds(60) }), { secret })],
  ["for another audience", () => token(claims({ aud: "other" }), { secret })],
  ["for a list of other audiences", () => token(claims({ aud: ["other", "another"] }), { secret })],
  ["without audience", () => token(claims({ aud: undefined }), { secret })],
  ["of another issuer", () => token(claims({ iss: "https://evil.example" }), { secret })],
  ["without issuer", () => token(claims({ iss: undefined }), { secret })],
  ["without sub", () => token(claims({ sub: undefined }), { secret })],
  ["with an empty sub", () => token(claims({ sub: "" }), { secret })],
  ["whose sub is a number", () => token(claims({ sub: 7 }), { secret })],
  ["whose sub has a NUL", () => token(claims({ sub: "i\0da" }), { secret })],
  ["whose sub is overlong", () => token(claims({ sub: "x".repeat(256) }), { secret })],
  ["of algorithm none", () => unsigned(claims())],
  ["of algorithm none with a signature", () => token(claims(), { secret }, { alg: "none" })],
  ["of another HMAC", () => token(claims(), { secret }, { alg: "HS512" })],
  ["with an unknown critical header", () => token(claims(), { secret }, { crit: ["x"], x: 1 })],
  ["cut short", () => token(claims(), { secret }).slice(0, -4)],
  ["that is garbage", () => "garbage"],
  ["whose payload is null", () => `e30.${Buffer.from("null").toString("base64url")}.AA`],
])("a token %s is refused, without an echo of it", async (_case, make) => {
  const { withToken, log } = await gateway({ hlf });
  const jwt = make();
  const { response, status, body } = await withToken(jwt);
  expect(status).toBe(401);
  expect(response.headers.get("content-type")).toContain("application/problem+json");
  expect(response.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
  expect(body["type"]).toBe("urn:tidegate:problem:unauthorized");
  expect(JSON.stringify(body) + log.join("")).not.toContain(jwt);
});

test("without a token the answer asks for one, and another scheme is none", async () => {
  const { ask } = await gateway({ hlf });
  for (const authorization of [undefined, "Basic aGxmOmhsZg==", "Bearer", "Bearer a b"]) {
    const { response, status } = await ask(authorization);
    expect(status).toBe(401);
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
  }
});

test("a clock that is off by less than 30 s does no harm", async () => {
  const { withToken } = await gateway({ hlf });
  expect((await withToken(token(claims({ exp: inSeconds(-20) }), { secret }))).status).toBe(200);
  expect((await withToken(token(claims({ nbf: inSeconds(20) }), { secret }))).status).toBe(200);
});

test("an HS256 token signed with the issuer's public key is refused", async () => {
  const { withToken, endpoint } = await withKeys("RS256", [jwk(rsa, "1")]);
  const pem = rsa.publicKey.export({ type: "spki", format: "pem" });
  for (const stolen of [pem, Buffer.from(pem), JSON.stringify(jwk(rsa, "1"))]) {
    expect((await withToken(token(claims(), { secret: stolen }, { kid: "1" }))).status).toBe(401);
    const dressedUp = token(claims(), { secret: stolen }, { kid: "1", alg: "RS256" });
    expect((await withToken(dressedUp)).status).toBe(401);
  }
  expect(endpoint.fetches).toBe(1);
});

test("an RS256 token does not pass where HS256 is configured", async () => {
  const { withToken } = await gateway({ hlf });
  expect((await withToken(token(claims(), { privateKey: rsa.privateKey, alg: "RS256" }))).status).toBe(401);
});

test.each([
  ["RS256", rsa],
  ["ES256", ec],
  ["EdDSA", ed],
] as const)("%s tokens are verified with the issuer's published key", async (alg, pair) => {
  const { withToken } = await withKeys(alg, [jwk(pair, "1")]);
  expect((await withToken(token(claims(), { privateKey: pair.privateKey, alg }, { kid: "1" }))).status).toBe(
    200,
  );
  expect((await withToken(token(claims(), { privateKey: pair.privateKey, alg }))).status).toBe(200);
  const forged = token(claims(), { privateKey: pair.privateKey, alg }, { kid: "1" }).replace(
    /.{8}$/,
    "AAAAAAAA",
  );
  expect((await withToken(forged)).status).toBe(401);
});

test("a key of another kind, use or algorithm is never tried", async () => {
  const keys = [
    jwk(ec, "ec"),
    { ...jwk(otherRsa, "enc"), use: "enc" },
    { ...jwk(otherRsa, "512"), alg: "RS512" },
  ];
  const { withToken } = await withKeys("RS256", [...keys, jwk(rsa, "1")]);
  for (const kid of ["ec", "enc", "512"]) {
    const jwt = token(claims(), { privateKey: otherRsa.privateKey, alg: "RS256" }, { kid });
    expect((await withToken(jwt)).status).toBe(401);
  }
});

test("a new key is found when its first token comes", async () => {
  const { withToken, endpoint } = await withKeys("RS256", [jwk(rsa, "1")]);
  expect(
    (await withToken(token(claims(), { privateKey: rsa.privateKey, alg: "RS256" }, { kid: "1" }))).status,
  ).toBe(200);
  endpoint.keys = [jwk(otherRsa, "2")];
  const rotated = token(claims(), { privateKey: otherRsa.privateKey, alg: "RS256" }, { kid: "2" });
  expect((await withToken(rotated)).status).toBe(200);
  const withdrawn = token(claims({ sub: "ola" }), { privateKey: rsa.privateKey, alg: "RS256" }, { kid: "1" });
  expect((await withToken(withdrawn)).status).toBe(401);
});

test("made-up key IDs cause one fetch in the cooldown, however many come", async () => {
  const { withToken, endpoint } = await withKeys("RS256", [jwk(rsa, "1")], { cooldownMs: 60_000 });
  const forged = Array.from({ length: 20 }, (_, index) =>
    token(claims(), { privateKey: otherRsa.privateKey, alg: "RS256" }, { kid: `made-up-${index}` }),
  );
  const answers = await Promise.all(forged.map(async (jwt) => (await withToken(jwt)).status));
  expect(new Set(answers)).toEqual(new Set([401]));
  expect(endpoint.fetches).toBe(1);
});

test("known keys outlive an outage of the issuer; an unknown one is 503, not 401", async () => {
  const { withToken, endpoint } = await withKeys("RS256", [jwk(rsa, "1")], { cooldownMs: 0, maxAgeMs: 0 });
  const known = (sub: string) =>
    token(claims({ sub }), { privateKey: rsa.privateKey, alg: "RS256" }, { kid: "1" });
  expect((await withToken(known("ida"))).status).toBe(200);
  for (const outage of [{ status: 500 }, { status: 200, body: "<html>" }, { body: '{"keys":[]}' }]) {
    Object.assign(endpoint, outage);
    expect((await withToken(known(JSON.stringify(outage)))).status).toBe(200);
  }
  const unknown = token(claims(), { privateKey: otherRsa.privateKey, alg: "RS256" }, { kid: "2" });
  const { response, status, body } = await withToken(unknown);
  expect(status).toBe(503);
  expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
  expect(response.headers.get("www-authenticate")).toBeNull();
  expect(body["type"]).toBe("urn:tidegate:problem:unavailable");
});

test("a key set that is too large or comes too slowly counts as an outage", async () => {
  const { withToken, endpoint } = await withKeys("RS256", [jwk(rsa, "1")], { cooldownMs: 0, bytesMax: 2000 });
  const jwt = token(claims(), { privateKey: rsa.privateKey, alg: "RS256" }, { kid: "1" });
  endpoint.body = `${" ".repeat(3000)}{"keys":[]}`;
  expect((await withToken(jwt)).status).toBe(503);
  endpoint.body = undefined;
  expect((await withToken(jwt)).status).toBe(200);
});

test("tenants that share an issuer are told apart by their claims; a token of neither or both is refused", async () => {
  const shared: TenantAuth = { ...hlf, scopes: ["org"] };
  const { withToken } = await gateway({
    north: { ...shared, match: { org: "north" } },
    south: { ...shared, match: { org: "south" } },
    both: { ...shared, match: { both: "yes" } },
  });
  expect((await withToken(token(claims({ org: "south" }), { secret }))).body["tenantId"]).toBe("south");
  expect((await withToken(token(claims({ org: "west" }), { secret }))).status).toBe(401);
  expect((await withToken(token(claims({ org: ["south"] }), { secret }))).status).toBe(401);
  expect((await withToken(token(claims({ org: "south", both: "yes" }), { secret }))).status).toBe(401);
});

test("one tenant's key does not open another tenant", async () => {
  const other = {
    ...hlf,
    issuer: "https://id.other.example",
    secret: "the secret of the other tenant, long enough",
  };
  const { withToken } = await gateway({ hlf, other });
  expect((await withToken(token(claims(), { secret: other.secret }))).status).toBe(401);
  expect((await withToken(token(claims({ iss: other.issuer }), { secret }))).status).toBe(401);
});

test("more scopes than a feed can serve are refused, not cut", async () => {
  const { withToken } = await gateway({ hlf });
  const groups = Array.from({ length: 1001 }, (_, index) => index);
  const { status, body } = await withToken(token(claims({ groups }), { secret }));
  expect([status, body["type"]]).toEqual([403, "urn:tidegate:problem:forbidden"]);
});
