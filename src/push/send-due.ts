import { setTimeout as pause } from "node:timers/promises";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import { inTenant } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { PushConfig } from "../platform/config/push-schema.ts";
import type { Database } from "../platform/schema.ts";
import { TooLate } from "./call.ts";
import { claimPushes, type Claimed, type ClaimedPush } from "./claim.ts";
import type { PushMetrics } from "./metrics.ts";
import type { PushService } from "./service.ts";
import { settlePushes, type Answered } from "./settle.ts";

export interface SendDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  log: Logger;
  metrics: PushMetrics;
}

/** A tenant whose apps are woken. */
export interface PushTenant {
  tenantId: string;
  config: PushConfig;
  services: readonly PushService[];
}

/** Calls of one service at a time, in one process. */
export const callsAtOnce = 64;
const leaseMsMin = 5_000;
const settleAgainMs = 500;

/** A lease outlives the call, the access token before it, and the writing down afterwards. */
function leaseMsOf({ timeoutMs }: PushConfig): number {
  return Math.max(leaseMsMin, 3 * timeoutMs);
}

/** Sends a tenant's pushes by one service until none is due, or `isOver`. */
export async function sendDue(
  deps: SendDeps,
  tenant: PushTenant,
  service: PushService,
  isOver: () => boolean,
): Promise<void> {
  while (!isOver()) {
    const claimed = await sendSome(deps, tenant, service);
    if (claimed.isProbe || claimed.looked < callsAtOnce) return;
  }
}

async function sendSome(
  deps: SendDeps,
  { tenantId, config }: PushTenant,
  service: PushService,
): Promise<Claimed> {
  const { db, codec } = deps;
  const leaseMs = leaseMsOf(config);
  const leaseEnd = performance.now() + leaseMs;
  const options = { ...config, service: service.name, limit: callsAtOnce, leaseMs, codec };
  const claimed = await inTenant(db, tenantId, (trx) => claimPushes(trx, tenantId, options));
  if (claimed.pushes.length === 0) return claimed;
  const mayStart = (): void => {
    if (performance.now() > leaseEnd - config.timeoutMs) throw new TooLate("its claim is about to lapse");
  };
  const send = async (push: ClaimedPush): Promise<Answered> => ({
    push,
    verdict: await service.send({ ...push, tenantId, ttlMs: config.reminderMs, mayStart }),
  });
  const answers = await Promise.all(claimed.pushes.map(send));
  const settle = async () =>
    await inTenant(db, tenantId, (trx) =>
      settlePushes(trx, tenantId, answers, {
        service: service.name,
        reminderMs: config.reminderMs,
        isProbe: claimed.isProbe,
      }),
    );
  const removed = await untilDone(settle, leaseEnd);
  tell(deps, tenantId, service, answers, removed);
  return claimed;
}

/** What was sent and is not written down is sent again, once the claims have lapsed. */
async function untilDone<T>(work: () => Promise<T>, until: number): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() + settleAgainMs > until) throw error;
      await pause(settleAgainMs);
    }
  }
}

function tell(
  { log, metrics }: SendDeps,
  tenantId: string,
  { name }: PushService,
  answers: readonly Answered[],
  removed: readonly Answered[],
): void {
  const reasons = new Map<string, number>();
  for (const { verdict } of answers) {
    if (verdict.kind === "sent") metrics.sent(tenantId, name);
    if (verdict.kind !== "failed") continue;
    metrics.failed(tenantId, name, verdict.reason);
    const reason = `${verdict.reason}: ${verdict.detail}`;
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  for (const { verdict } of removed) {
    if (verdict.kind === "dead") metrics.removed(tenantId, name, verdict.reason);
  }
  for (const [reason, pushes] of reasons)
    log.warn({ tenantId, service: name, reason, pushes }, "pushes were not taken; they are tried again");
}
