import { createHmac } from "node:crypto";

import type { WebhookConfig } from "../platform/config/push-schema.ts";
import { failedWith, openCaller, withoutAnswer, type CallOptions } from "./call.ts";
import type { Push, PushService } from "./service.ts";

/** The organisation's own service that wakes apps, called as Standard Webhooks says. */
export function openWebhook({ url, secret }: WebhookConfig, options: CallOptions): PushService {
  const keys = secret.split(",").map((text) => Buffer.from(text.trim().slice("whsec_".length), "base64"));
  const caller = openCaller(url, options);
  return {
    name: "webhook",
    async send(push) {
      const body = bodyOf(push);
      try {
        const answer = await caller.post(headersOf(push, keys, body), body, push.mayStart);
        if (answer.status === 410) return { kind: "dead", reason: "gone" };
        return answer.status >= 200 && answer.status < 300 ? { kind: "sent" } : failedWith(answer);
      } catch (error) {
        return withoutAnswer(error);
      }
    },
    close: async () => await caller.close(),
  };
}

function bodyOf({ tenantId, clientId, platform, address }: Push): string {
  return JSON.stringify({
    type: "client.changed",
    timestamp: new Date().toISOString(),
    data: { tenant: tenantId, clientId, platform, registration: address },
  });
}

/** One signature for each key, so that a receiver may change to another secret at its own time. */
function headersOf({ pushId }: Push, keys: readonly Buffer[], body: string): string[] {
  const id = `push_${pushId}`;
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const signatures = keys.map(
    (key) => `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`,
  );
  return [
    ["content-type", "application/json"],
    ["webhook-id", id],
    ["webhook-timestamp", timestamp],
    ["webhook-signature", signatures.join(" ")],
  ].flat();
}
