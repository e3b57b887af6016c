import { generateKeyPairSync } from "node:crypto";

import { expect, test } from "vitest";

import { load, problemsOf, rsaKey, withPush } from "../../../test/fixtures/configs.ts";

const fcm = "fcm: { projectId: an-app, clientEmail: a@b.example, privateKey: '${HLF_FCM_KEY}' }";

test("a push service has the addresses of Google's, two pushes an hour to iOS, and six hours between reminders", () => {
  const push = load(withPush(fcm)).config.tenants["hlf"]?.push;
  expect(push).toMatchObject({
    fcm: { tokenUri: "https://oauth2.googleapis.com/token", baseUrl: "https://fcm.googleapis.com" },
    delayMs: 5_000,
    reminderMs: 21_600_000,
    budget: { ios: 2, android: 10, other: 10 },
  });
  expect(push?.fcm?.privateKey).toBe(rsaKey.replaceAll(String.raw`\n`, "\n"));
});

test("`push` without a service is refused", () => {
  expect(problemsOf(withPush("delayMs: 1000"))).toEqual([
    "tidegate.yaml:8:5 tenants.hlf.push: needs `fcm` or `webhook`",
  ]);
});

const { privateKey: ecKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
test.each([
  ["no key at all", "not a key"],
  ["a key that can't sign RS256", ecKey.export({ type: "pkcs8", format: "pem" }).toString()],
])("%s is refused, and not shown", (_case, key) => {
  expect(problemsOf(withPush(fcm), { HLF_FCM_KEY: key })).toEqual([
    "tidegate.yaml:9:71 tenants.hlf.push.fcm.privateKey: must be an RSA private key in PEM form",
  ]);
});

test.each(["whsec_", "whsec_c2hvcnQ=", "a long secret that is not one of a webhook's", "whsec_%%%"])(
  "the webhook's secret %s is refused, and not shown",
  (secret) => {
    const lines = withPush('webhook: { url: "https://a.example", secret: "${HLF_PUSH_SECRET}" }');
    expect(problemsOf(lines, { HLF_PUSH_SECRET: secret })).toEqual([
      "tidegate.yaml:9:52 tenants.hlf.push.webhook.secret: must be `whsec_` and the base64 of at least 24 bytes",
    ]);
    expect(problemsOf(lines)).toEqual([]);
  },
);

test.each(["push.example/wake", "ftp://push.example", "https://user:secret@push.example"])(
  "the webhook's URL %s is refused",
  (url) => {
    const lines = withPush(`webhook: { url: "${url}", secret: "\${HLF_PUSH_SECRET}" }`);
    expect(problemsOf(lines)).toEqual([expect.stringContaining("tenants.hlf.push.webhook.url: must")]);
  },
);

test("a project's ID that would be another path is refused", () => {
  const lines = withPush("fcm: { projectId: ../x, clientEmail: a, privateKey: '${HLF_FCM_KEY}' }");
  expect(problemsOf(lines)).toEqual([
    expect.stringContaining("push.fcm.projectId: must be a Firebase project"),
  ]);
});
