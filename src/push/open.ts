import type { PushConfig } from "../platform/config/push-schema.ts";
import type { Config } from "../platform/config/schema.ts";
import { openFcm } from "./fcm.ts";
import { callsAtOnce, type PushTenant } from "./send-due.ts";
import { openWebhook } from "./webhook.ts";

/** By tenant, for those whose apps are woken. */
export function pushConfigsOf({ tenants }: Pick<Config, "tenants">): Map<string, PushConfig> {
  return new Map(Object.entries(tenants).flatMap(([tenantId, { push }]) => (push ? [[tenantId, push]] : [])));
}

/** Opens a tenant's push services, with connections of their own. Nothing is connected before the first push. */
export function openPush(tenantId: string, config: PushConfig): PushTenant {
  const options = { connections: callsAtOnce, timeoutMs: config.timeoutMs };
  const { fcm, webhook } = config;
  const services = [
    ...(fcm ? [openFcm(fcm, options)] : []),
    ...(webhook ? [openWebhook(webhook, options)] : []),
  ];
  return { tenantId, config, services };
}
