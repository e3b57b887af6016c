import { expect, test } from "vitest";

import { registerOpsAuth } from "../../src/http/ops-auth.ts";
import { registerQueuesBoard } from "../../src/ops/queues-board.ts";
import { inSeconds, testServer, token } from "./gateway.ts";

const secret = "the secret of the operators, long enough";
const auth = { issuer: "ops", audience: "tidegate-ops", algorithm: "HS256", secret } as const;
const asRole = (role: string, more: Record<string, unknown> = {}) =>
  token({ iss: "ops", aud: "tidegate-ops", sub: "siri", role, exp: inSeconds(600), ...more }, { secret });

const bearer = (role: string) => ({ authorization: `Bearer ${asRole(role)}` });

async function board() {
  const server = await testServer();
  const requireOps = await registerOpsAuth(server.app, { auth });
  await registerQueuesBoard(server.app, { queues: [], requireOps });
  for (const role of ["viewer", "operator", "approver"] as const) {
    server.app.get(`/ops/v1/${role}`, { onRequest: requireOps(role) }, async ({ operator }) => operator);
  }
  const url = await server.listen();
  const ask = async (path: string, headers: Record<string, string> = {}, method = "GET") =>
    await fetch(url + path, { method, headers, redirect: "manual" });
  const logIn = async (jwt: string, host = new URL(url).host) =>
    await fetch(`${url}/ops/session`, {
      method: "POST",
      body: new URLSearchParams({ token: jwt }),
      headers: { host },
      redirect: "manual",
    });
  return { ...server, url, ask, logIn };
}

test("each role may do what the roles before it may, and no more", async () => {
  const { ask } = await board();
  const roles = ["viewer", "operator", "approver"];
  for (const [held, role] of roles.entries()) {
    for (const [needed, path] of roles.entries()) {
      expect((await ask(`/ops/v1/${path}`, bearer(role))).status).toBe(held >= needed ? 200 : 403);
    }
  }
  expect((await ask("/ops/v1/viewer", bearer("admin"))).status).toBe(403);
});

test.each<[string, string]>([
  [
    "a tenant's",
    token(
      { iss: "ops", aud: "tidegate-ops", sub: "a", role: "approver", exp: inSeconds(9) },
      { secret: "b" },
    ),
  ],
  ["an expired", asRole("approver", { exp: inSeconds(-60) })],
  ["another audience's", asRole("approver", { aud: "tidegate" })],
  ["another issuer's", asRole("approver", { iss: "hlf" })],
  ["a nameless", asRole("approver", { sub: undefined })],
])("%s token is refused at /ops", async (_case, jwt) => {
  const { ask, log } = await board();
  const response = await ask("/ops/queues/api/queues", { authorization: `Bearer ${jwt}` });
  expect(response.status).toBe(401);
  expect(response.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
  expect(await response.json()).toMatchObject({ type: "urn:tidegate:problem:unauthorized" });
  expect(log.join("")).not.toContain(jwt);
});

test("a viewer sees the board and can change nothing; an operator's change gets through to it", async () => {
  const { ask } = await board();
  const page = await ask("/ops/queues/", bearer("viewer"));
  expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
  expect(page.headers.get("content-security-policy")).toContain("default-src 'self'");
  expect(await (await ask("/ops/queues/api/queues", bearer("viewer"))).json()).toEqual({ queues: [] });
  for (const [path, method] of [
    ["/ops/queues/api/queues/pause", "PUT"],
    ["/ops/queues/api/queues/replay/1/retry", "PUT"],
    ["/ops/queues/api/queues/replay/add", "POST"],
    ["/ops/queues/api/queues/replay/1/update-data", "PATCH"],
  ] as const) {
    const forged = { ...bearer("viewer"), "x-tidegate-ops-role": "approver" };
    expect((await ask(path, forged, method)).status).toBe(403);
  }
  expect((await ask("/ops/queues/api/queues/pause", bearer("operator"), "PUT")).status).toBe(200);
  expect((await ask("/ops/queues/api/queues/replay/1/retry", bearer("approver"), "PUT")).status).toBe(404);
});

test("the board's files need a token like the board", async () => {
  const { ask } = await board();
  for (const path of [
    "/ops/queues",
    "/ops/queues/",
    "/ops/queues/static/images/logo.svg",
    "/ops/queues/queue/x",
  ]) {
    expect((await ask(path)).status).toBe(401);
    const browser = await ask(path, { accept: "text/html,*/*" });
    expect([browser.status, browser.headers.get("location")]).toEqual([303, "/ops/login"]);
  }
});

test("a browser logs in by form and keeps the token in a cookie that only /ops and only this site gets", async () => {
  const { ask, logIn } = await board();
  expect(await (await ask("/ops/login")).text()).toContain('action="/ops/session"');
  const response = await logIn(asRole("viewer"));
  expect([response.status, response.headers.get("location")]).toEqual([303, "/ops/queues/"]);
  const cookie = response.headers.get("set-cookie") ?? "";
  expect(cookie).toMatch(/^tidegate_ops=[\w.-]+; Path=\/ops; Max-Age=6\d\d; HttpOnly; SameSite=Strict$/);
  const [pair = ""] = cookie.split(";");
  expect((await ask("/ops/queues/", { cookie: `a=b; ${pair}` })).status).toBe(200);
});

test("the form refuses what is no operator's token, without an echo", async () => {
  const { logIn, log } = await board();
  for (const jwt of [
    "<script>alert(1)</script>",
    "a b",
    "",
    asRole("viewer", { exp: 1 }),
    "x".repeat(5000),
  ]) {
    const response = await logIn(jwt);
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(response.headers.get("set-cookie")).toBeNull();
    const page = await response.text();
    expect(page).not.toContain("<script");
    if (jwt !== "") expect(page + log.join("")).not.toContain(jwt);
  }
});

test("a cookie changes something only for pages of the same origin", async () => {
  const { ask, logIn, url } = await board();
  const [cookie = ""] = (await logIn(asRole("operator"))).headers.get("set-cookie")?.split(";") ?? [];
  const pause = async (headers: Record<string, string>) =>
    (await ask("/ops/queues/api/queues/pause", { cookie, ...headers }, "PUT")).status;
  expect(await pause({ origin: url })).toBe(200);
  expect(await pause({})).toBe(403);
  expect(await pause({ origin: "null" })).toBe(403);
  expect(await pause({ origin: "https://evil.example" })).toBe(403);
  expect(await pause({ origin: url.replace("127.0.0.1", "localhost") })).toBe(403);
});
