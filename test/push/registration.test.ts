import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, expect, test, vi } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { rowsOf } from "../replay/rows.ts";
import { newApp, registrationOf, startPushRig, type PushRig } from "./rig.ts";

let rig: PushRig;

beforeAll(async () => {
  rig = await startPushRig({ role: "api", otherUpstreams: crm("http://127.0.0.1:9") });
});
afterAll(async () => {
  await rig[Symbol.asyncDispose]();
});

const registrations = async (address: string) =>
  await rowsOf<{ tenant_id: string; client_id: string }>(
    rig.gateway.database,
    "select tenant_id, client_id from push_registration where convert_from(address, 'UTF8') = $1 order by 1",
    [address],
  );
const audiencesOf = async (clientId: string) =>
  await rowsOf(rig.gateway.database, "select 1 from push_audience where client_id = $1", [clientId]);

test("a client says its version and how it is woken, and both stand until it says otherwise", async () => {
  const app = newApp(rig.gateway);
  const path = `/v1/clients/${app.clientId}`;
  expect((await app.api.put(path, { appVersion: "2.1" })).body).toEqual({
    clientId: app.clientId,
    appVersion: "2.1",
    push: null,
  });
  await app.register();
  const { body } = await app.api.put(path, { appVersion: "2.2" });
  expect(body).toMatchObject({ appVersion: "2.2", push: { service: "fcm", platform: "android" } });
  expect((await app.register(null)).body).toMatchObject({ appVersion: "2.2", push: null });
  expect(await registrationOf(rig.gateway, app.clientId)).toBeUndefined();
  expect(await audiencesOf(app.clientId)).toEqual([]);
});

test("a client of another user is not touched", async () => {
  const [app, stranger] = [newApp(rig.gateway), rig.gateway.as({ sub: "somebody else" })];
  await app.register();
  for (const push of [null, { service: "fcm", platform: "ios", token: "stolen" }]) {
    const { status, body } = await stranger.put(`/v1/clients/${app.clientId}`, { push, appVersion: "0" });
    expect([status, body.type]).toEqual([403, "urn:tidegate:problem:client-owned"]);
  }
  expect(await registrations(app.token)).toEqual([{ tenant_id: "ours", client_id: app.clientId }]);
});

test("a registration token has one client of a tenant, the last one; another tenant's is its own", async () => {
  const token = `token-${randomUUID()}`;
  const [first, second] = [newApp(rig.gateway, {}, token), newApp(rig.gateway, { sub: "siri" }, token)];
  const elsewhere = newApp(rig.gateway, { iss: "other" }, token);
  for (const app of [elsewhere, first, second]) expect((await app.register()).status).toBe(200);
  expect(await registrations(token)).toEqual([
    { tenant_id: "other", client_id: elsewhere.clientId },
    { tenant_id: "ours", client_id: second.clientId },
  ]);
  expect(await audiencesOf(first.clientId)).toEqual([]);
});

test("of clients that register one token at the same moment, one has it", async () => {
  const token = `token-${randomUUID()}`;
  const apps = Array.from({ length: 12 }, () => newApp(rig.gateway, {}, token));
  const answers = await Promise.all(apps.map(async (app) => await app.register()));
  expect(answers.map(({ status }) => status)).toEqual(apps.map(() => 200));
  expect(await registrations(token)).toHaveLength(1);
});

test("registering again changes neither what the client has read nor its budget", async () => {
  const app = newApp(rig.gateway);
  await app.register();
  await rowsOf(
    rig.gateway.database,
    `update push_registration set told_position = 7, read_position = 6, sent_at = array[now()], wanted_position = 9,
       pushed_at = now(), due_at = now() + interval '1 day' where client_id = $1`,
    [app.clientId],
  );
  const before = await registrationOf(rig.gateway, app.clientId);
  await app.register();
  const again = await registrationOf(rig.gateway, app.clientId);
  expect(again).toEqual({ ...before, revision: expect.any(String) });
  expect(again).not.toEqual(before);
  // What its new scopes have is looked at, even if it is the same app.
  const inOslo = rig.gateway.as({ groups: ["oslo"] });
  await inOslo.put(`/v1/clients/${app.clientId}`, {
    push: { service: "fcm", platform: "android", token: app.token },
  });
  const elsewhere = await registrationOf(rig.gateway, app.clientId);
  expect(elsewhere).toMatchObject({
    scopes: ["group:oslo", "org", "user:kari"],
    pushed_at: before?.pushed_at,
  });
  expect(elsewhere?.due_at?.getTime()).toBeLessThan(Date.now() + 60_000);
  // Another token has not been woken yet.
  await app.register({ service: "fcm", platform: "android", token: `token-${randomUUID()}` });
  const moved = await registrationOf(rig.gateway, app.clientId);
  expect(moved).toMatchObject({ told_position: "7", pushed_at: null, sent_at: before?.sent_at });
  expect(moved?.due_at?.getTime()).toBeLessThan(Date.now() + 60_000);
});

test.each([
  ["no service", { platform: "ios", token: "x" }],
  ["an unknown service", { service: "apns", platform: "ios", token: "x" }],
  ["no token", { service: "fcm", platform: "ios" }],
  ["an empty token", { service: "fcm", platform: "ios", token: "" }],
  ["a NUL", { service: "webhook", registration: "a\0b" }],
  ["another platform", { service: "fcm", platform: "other", token: "x" }],
  ["a URL to call", { service: "webhook", registration: "x", url: "http://10.0.0.1" }],
  ["too much", { service: "webhook", registration: "x".repeat(4_097) }],
])("a registration with %s is refused, and its token is in no answer", async (_case, push) => {
  const app = newApp(rig.gateway);
  const { status, body } = await app.register(push);
  expect([status, body.type]).toEqual([400, "urn:tidegate:problem:invalid-request"]);
  expect(await registrationOf(rig.gateway, app.clientId)).toBeUndefined();
});

test("where a service is not configured, nothing of the request is taken, and versions are", async () => {
  const { webhook } = rig.server;
  await using gateway = await startGateway({
    upstreams: crm("http://127.0.0.1:9"),
    push: { webhook },
    role: "api",
  });
  await using without = await startGateway({ upstreams: crm("http://127.0.0.1:9"), role: "api" });
  expect((await gateway.as().get("/v1/capabilities")).body.push).toEqual(["webhook"]);
  for (const one of [gateway, without]) {
    const app = newApp(one);
    const fcm = { service: "fcm", platform: "ios", token: "x" };
    const { status, body } = await app.api.put(`/v1/clients/${app.clientId}`, { appVersion: "1", push: fcm });
    expect([status, body.type]).toEqual([422, "urn:tidegate:problem:push-not-configured"]);
    expect(await rowsOf(one.database, "select 1 from client")).toEqual([]);
    expect((await app.api.put(`/v1/clients/${app.clientId}`, { appVersion: "1", push: null })).status).toBe(
      200,
    );
  }
});

test("registration tokens are in no log, and their hashes tell nothing without the secret", async () => {
  const app = newApp(rig.gateway);
  await app.register();
  await app.register({ service: "fcm", platform: "ios", token: app.token, extra: true });
  expect(rig.gateway.log.join("")).not.toContain(app.token);
  const rows = await rowsOf(
    rig.gateway.database,
    "select 1 from push_registration where address_hash = sha256(address) or address_hash = sha256('fcm' || address)",
  );
  expect(rows).toEqual([]);
});

test("who is not registered costs reads nothing, and leaves no trace", async () => {
  const app = newApp(rig.gateway);
  await app.read();
  const outbox = newOutbox(app.clientId);
  const { status } = await app.api.upload({ ...outbox.batch(), mutations: [] }, { wait: 0 });
  expect(status).toBe(200);
  expect(await registrationOf(rig.gateway, app.clientId)).toBeUndefined();
});

test("operators see how a service does, and nobody's address", async () => {
  await newApp(rig.gateway).register();
  await vi.waitFor(
    async () => {
      const { status, body } = await rig.gateway.asOps("viewer").get("/ops/v1/tenants/ours/push");
      expect(status).toBe(200);
      expect(body.services).toMatchObject([
        { service: "fcm", failures: 0, pausedUntil: null, problem: null },
        { service: "webhook", registered: 0 },
      ]);
    },
    { timeout: 20_000, interval: 50 },
  );
});
