import { createHmac, generateKeyPairSync, randomUUID } from "node:crypto";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import type { FcmConfig } from "../../src/platform/config/push-schema.ts";
import { TooLate } from "../../src/push/call.ts";
import { openFcm } from "../../src/push/fcm.ts";
import type { Push, PushService } from "../../src/push/service.ts";
import { openWebhook } from "../../src/push/webhook.ts";
import { fcmError, startPushServer, type PushAnswer, type PushServer } from "./push-server.ts";

let server: PushServer;
const opened: PushService[] = [];
beforeEach(async () => {
  server = await startPushServer();
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map(async (service) => await service.close()));
  await server[Symbol.asyncDispose]();
});

const options = { connections: 64, timeoutMs: 5_000 };
function fcm(rest: Partial<FcmConfig> = {}, timeoutMs = options.timeoutMs): PushService {
  const service = openFcm({ ...server.fcm, androidPriority: "normal", ...rest }, { ...options, timeoutMs });
  opened.push(service);
  return service;
}
function webhook(secret = server.webhook.secret): PushService {
  const service = openWebhook({ ...server.webhook, secret }, options);
  opened.push(service);
  return service;
}
const aPush = (rest: Partial<Push> = {}): Push => ({
  tenantId: "ours",
  clientId: "0192f0c1-7f0a-7c3e-9d55-2b8f3a6e1c01",
  platform: "android",
  address: "a-token",
  pushId: randomUUID(),
  ttlMs: 21_600_000,
  mayStart: () => undefined,
  ...rest,
});

describe("what a push says", () => {
  test("on Android: that there is something, once, for as long as it is worth it", async () => {
    expect(await fcm().send(aPush())).toEqual({ kind: "sent" });
    expect(server.pushes[0]?.body).toEqual({
      message: {
        token: "a-token",
        data: { type: "changed" },
        android: { priority: "normal", collapse_key: "tidegate", ttl: "21600s" },
      },
    });
  });

  test("on iOS: nothing that could be shown", async () => {
    expect(await fcm().send(aPush({ platform: "ios", ttlMs: 90 * 86_400_000 }))).toEqual({ kind: "sent" });
    const message = server.pushes[0]?.body.message;
    const expiration = Number(message.apns.headers["apns-expiration"]) - Date.now() / 1_000;
    expect(Math.round(expiration / 86_400)).toBe(28);
    expect(message).toEqual({
      token: "a-token",
      data: { type: "changed" },
      apns: {
        headers: {
          "apns-push-type": "background",
          "apns-priority": "5",
          "apns-collapse-id": "tidegate",
          "apns-expiration": expect.any(String),
        },
        payload: { aps: { "content-available": 1 } },
      },
    });
  });

  test("to a webhook: which client of which tenant, as that client has named itself; signed", async () => {
    const push = aPush({ platform: "other", address: "device 7" });
    expect(await webhook().send(push)).toEqual({ kind: "sent" });
    const [taken] = server.pushes;
    const { tenantId: tenant, clientId } = push;
    expect(taken?.body).toEqual({
      type: "client.changed",
      timestamp: expect.any(String),
      data: { tenant, clientId, platform: "other", registration: "device 7" },
    });
    expect(taken?.headers["webhook-id"]).toBe(`push_${push.pushId}`);
  });

  test("is signed with each secret, so that the receiver may change it", async () => {
    const another = `whsec_${createHmac("sha256", "another").digest("base64")}`;
    expect(await webhook(another).send(aPush())).toMatchObject({ kind: "failed", reason: "unauthorized" });
    expect(await webhook(`${another},${server.webhook.secret}`).send(aPush())).toEqual({ kind: "sent" });
  });
});

describe("the access token", () => {
  test("is fetched once for many pushes, also when they begin together", async () => {
    const service = fcm();
    const send = async () =>
      await Promise.all(Array.from({ length: 50 }, async () => await service.send(aPush())));
    await send();
    await send();
    expect(server.pushes).toHaveLength(100);
    expect([server.asked, server.grants]).toEqual([1, 1]);
  });

  test("that is not accepted any more is renewed once for many pushes, and none is lost", async () => {
    const service = fcm();
    await service.send(aPush());
    server.expireAccessTokens();
    const sends = Array.from({ length: 50 }, async () => await service.send(aPush()));
    expect(await Promise.all(sends)).toEqual(sends.map(() => ({ kind: "sent" })));
    expect(server.grants).toBe(2);
  });

  test("is renewed before it expires", async () => {
    server.accessTokenSeconds = 0;
    const service = fcm();
    expect(await service.send(aPush())).toMatchObject({ kind: "failed" });
    server.accessTokenSeconds = 3_600;
    const { grants } = server;
    expect(await service.send(aPush())).toEqual({ kind: "sent" });
    expect(await service.send(aPush())).toEqual({ kind: "sent" });
    expect(server.grants).toBe(grants + 1);
  });

  test("that is refused again is not asked for again and again", async () => {
    server.always = fcmError(401, "UNAUTHENTICATED");
    expect(await fcm().send(aPush())).toMatchObject({
      kind: "failed",
      reason: "unauthorized",
      isUnclear: false,
    });
    expect([server.calls.length, server.grants]).toEqual([2, 2]);
  });

  test("is not renewed when it is Apple's key that is wrong", async () => {
    server.always = fcmError(401, "THIRD_PARTY_AUTH_ERROR");
    expect(await fcm().send(aPush())).toMatchObject({
      kind: "failed",
      detail: expect.stringContaining("THIRD_PARTY"),
    });
    expect([server.calls.length, server.grants]).toEqual([1, 1]);
  });

  test("is not given for another key, and then no push is sent", async () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
    const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    const verdict = await fcm({ privateKey: pem }).send(aPush());
    expect(verdict).toMatchObject({ kind: "failed", reason: "unauthorized", isUnclear: false });
    expect(verdict).toMatchObject({ detail: "no access token: 400 invalid_grant" });
    expect([server.asked, server.calls.length]).toEqual([1, 0]);
  });
});

const retryAfter = { headers: { "retry-after": "7" } };
const status =
  (code: number, headers: Record<string, string> = {}): PushAnswer =>
  ({ response }) =>
    void response.writeHead(code, headers).end("<html>Our fault</html>");

describe("an answer of FCM's", () => {
  test.each<[string, PushAnswer, object]>([
    ["404 UNREGISTERED", fcmError(404, "UNREGISTERED"), { kind: "dead", reason: "unregistered" }],
    [
      "403 SENDER_ID_MISMATCH",
      fcmError(403, "SENDER_ID_MISMATCH"),
      { kind: "dead", reason: "sender-id-mismatch" },
    ],
    [
      "400 about the token",
      fcmError(400, "INVALID_ARGUMENT", { field: "message.token" }),
      { kind: "dead", reason: "invalid-token" },
    ],
    [
      "400 that says so in words",
      fcmError(400, "INVALID_ARGUMENT", {
        message: "The registration token is not a valid FCM registration token",
      }),
      { kind: "dead", reason: "invalid-token" },
    ],
    [
      "400 about something else",
      fcmError(400, "INVALID_ARGUMENT", {
        field: "message.android.ttl",
        message: "not the registration token",
      }),
      { kind: "failed", reason: "refused" },
    ],
    ["404 of a project that isn't there", fcmError(404, "NOT_FOUND"), { kind: "failed", reason: "refused" }],
    ["404 of somebody else's server", status(404), { kind: "failed", reason: "refused" }],
    [
      "403 without the right to send",
      fcmError(403, "PERMISSION_DENIED"),
      { kind: "failed", reason: "unauthorized" },
    ],
    [
      "429 with a time",
      fcmError(429, "QUOTA_EXCEEDED", retryAfter),
      { kind: "failed", reason: "rate-limited", retryAfterMs: 7_000 },
    ],
    [
      "429 without",
      fcmError(429, "QUOTA_EXCEEDED"),
      { kind: "failed", reason: "rate-limited", retryAfterMs: 60_000 },
    ],
    [
      "503 with a time",
      fcmError(503, "UNAVAILABLE", retryAfter),
      { kind: "failed", reason: "unavailable", retryAfterMs: 7_000 },
    ],
    ["500", fcmError(500, "INTERNAL"), { kind: "failed", reason: "unavailable", retryAfterMs: undefined }],
    [
      "a redirect",
      status(302, { location: "http://127.0.0.1:9/" }),
      { kind: "failed", reason: "unexpected" },
    ],
    [
      "a cut connection",
      ({ response }) => void response.destroy(),
      { kind: "failed", reason: "no-answer", isUnclear: true },
    ],
  ])("%s", async (_case, answer, verdict) => {
    server.script(answer);
    expect(await fcm().send(aPush())).toMatchObject(verdict);
    expect(server.calls).toHaveLength(1);
  });

  test("that doesn't come is waited for no longer than a call may take", async () => {
    server.script(async () => await new Promise<void>(() => undefined));
    expect(await fcm({}, 300).send(aPush())).toMatchObject({
      kind: "failed",
      reason: "no-answer",
      isUnclear: true,
    });
  });
});

test("a webhook that says 410 is told no more of that client; one that refuses is tried again", async () => {
  const service = webhook();
  server.script(status(410), status(404), status(429, { "retry-after": "9" }), status(500));
  expect(await service.send(aPush())).toEqual({ kind: "dead", reason: "gone" });
  expect(await service.send(aPush())).toMatchObject({ kind: "failed", reason: "refused" });
  expect(await service.send(aPush())).toMatchObject({ reason: "rate-limited", retryAfterMs: 9_000 });
  expect(await service.send(aPush())).toMatchObject({ kind: "failed", reason: "unavailable" });
});

function isOver(): void {
  throw new TooLate("it is over");
}

test("what may not start any more is not sent, and a server that is away is not unclear", async () => {
  const verdict = await fcm().send(aPush({ mayStart: isOver }));
  expect(verdict).toMatchObject({ kind: "failed", reason: "too-late", isUnclear: false });
  expect(server.calls).toEqual([]);
  await server[Symbol.asyncDispose]();
  expect(await webhook().send(aPush())).toMatchObject({ reason: "unreachable", isUnclear: false });
});
