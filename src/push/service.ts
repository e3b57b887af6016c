import type { PushConfig } from "../platform/config/push-schema.ts";
import type { PushPlatform, PushServiceName } from "../platform/schema.ts";

/** A word to one client's app that there is something to read; it does not say what. */
export interface Push {
  tenantId: string;
  clientId: string;
  platform: PushPlatform;
  /** The registration token, or the app's own text. */
  address: string;
  /** The same for every attempt at one push. */
  pushId: string;
  /** For how long it is worth delivering. */
  ttlMs: number;
  /** Throws when the push may not be sent any more. Called last before the first byte is written. */
  mayStart: () => void;
}

/** Why an address is dead: the service's own words. */
export type DeadReason = "unregistered" | "invalid-token" | "sender-id-mismatch" | "gone";

/**
 * Why a push failed. `unauthorized`, `refused` and `unexpected` are ours to correct, or the service's operator's; the others
 * pass.
 */
export type FailureReason =
  | "unreachable"
  | "no-answer"
  | "rate-limited"
  | "unavailable"
  | "unauthorized"
  | "refused"
  | "unexpected"
  | "too-late";

export type Verdict =
  | { kind: "sent" }
  /** The address will never work again. */
  | { kind: "dead"; reason: DeadReason }
  | {
      kind: "failed";
      reason: FailureReason;
      /** It may have been delivered all the same. */
      isUnclear: boolean;
      /** How long the service asks to be left alone. */
      retryAfterMs?: number | undefined;
      /** For operators; holds neither the address nor a token. */
      detail: string;
    };

/** Wakes apps by one service. */
export interface PushService {
  name: PushServiceName;
  /** Sends one push, at most once. Never rejects. */
  send: (push: Push) => Promise<Verdict>;
  close: () => Promise<void>;
}

/** The names of the services that each tenant has. */
export function servicesOf(configs: ReadonlyMap<string, PushConfig>): Map<string, PushServiceName[]> {
  return new Map([...configs].map(([tenantId, config]) => [tenantId, serviceNames(config)]));
}

export function serviceNames({ fcm, webhook }: PushConfig): PushServiceName[] {
  return [...(fcm ? ["fcm" as const] : []), ...(webhook ? ["webhook" as const] : [])];
}
