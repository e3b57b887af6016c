import { createPrivateKey } from "node:crypto";

import { isHttpUrl } from "./check-auth.ts";
import type { Path, Report } from "./report.ts";
import type { FcmConfig, PushConfig, WebhookConfig } from "./push-schema.ts";
import type { Config } from "./schema.ts";

/** What the schema can't say about the ways in which apps are woken. */
export function checkPush({ tenants }: Config, report: Report): void {
  for (const [tenantId, tenant] of Object.entries(tenants ?? {})) {
    const path = ["tenants", tenantId, "push"];
    if (tenant?.push && report.sound(["tenants", tenantId], "push")) checkServices(tenant.push, path, report);
  }
}

function checkServices({ fcm, webhook }: PushConfig, path: Path, report: Report): void {
  if (!fcm && !webhook) report.problem(path, "needs `fcm` or `webhook`");
  if (fcm) checkFcm(fcm, [...path, "fcm"], report);
  if (webhook) checkWebhook(webhook, [...path, "webhook"], report);
}

function checkFcm(fcm: FcmConfig, path: Path, report: Report): void {
  for (const key of ["tokenUri", "baseUrl"] as const) checkUrl(fcm[key], [...path, key], report);
  if (!isRsaKey(fcm.privateKey))
    report.problem([...path, "privateKey"], "must be an RSA private key in PEM form");
}

function checkWebhook({ url, secret }: WebhookConfig, path: Path, report: Report): void {
  checkUrl(url, [...path, "url"], report);
  if (!secret.split(",").every(isWebhookSecret))
    report.problem([...path, "secret"], "must be `whsec_` and the base64 of at least 24 bytes");
}

function checkUrl(url: string, path: Path, report: Report): void {
  if (!isHttpUrl(url)) return report.problem(path, "must be an absolute http or https URL");
  const { username, password } = new URL(url);
  if (username !== "" || password !== "") report.problem(path, "must not carry credentials");
}

/** PEM as text, with its line breaks as they are or, as in the service account's JSON, written as `\n`. */
export function pemOf(privateKey: string): string {
  return privateKey.replaceAll(String.raw`\n`, "\n");
}

function isRsaKey(privateKey: string): boolean {
  try {
    return createPrivateKey(pemOf(privateKey)).asymmetricKeyType === "rsa";
  } catch {
    return false;
  }
}

const secretBytesMin = 24;

function isWebhookSecret(text: string): boolean {
  const [, base64] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text.trim()) ?? [];
  return base64 !== undefined && Buffer.from(base64, "base64").length >= secretBytesMin;
}
