import type { Kysely } from "kysely";
import type { Logger } from "pino";

import { inTenantSnapshot } from "../platform/db.ts";
import type { Hints } from "../platform/hints.ts";
import type { Database } from "../platform/schema.ts";
import { audiencesOf, hintKeys } from "./audience.ts";
import { readHead } from "./head.ts";
import type { Follower, Place } from "./pull.ts";

/** Somebody who waits for what comes behind a place in the feed. */
export interface Waiter {
  follower: Follower;
  /** Where it stands at the moment. */
  place: () => Place;
  /** There may be something for it. */
  wake: () => void;
}

export interface Waiters {
  /** Wakes the waiter at hints and after looks until the returned function is called. */
  add: (waiter: Waiter) => () => void;
  close: () => void;
}

export interface WaitersOptions {
  db: Kysely<Database>;
  hints: Hints;
  log: Logger;
  lookEveryMs: number;
}

/**
 * Wakes those who wait for changes. Hints may get lost, so now and then it looks: at the feed's head, once for all of a
 * tenant who wait, however many they are.
 */
export function createWaiters({ db, hints, log, lookEveryMs }: WaitersOptions): Waiters {
  const byTenant = new Map<string, Set<Waiter>>();

  async function look(tenantId: string, waiters: Set<Waiter>): Promise<void> {
    try {
      const head = await inTenantSnapshot(db, tenantId, (trx) => readHead(trx, tenantId));
      for (const { place, wake } of waiters) {
        const { position, epoch } = place();
        if (position !== head.position || (epoch ?? head.epoch) !== head.epoch) wake();
      }
    } catch (error) {
      log.warn({ err: error, tenantId }, "changes could not be looked for; the next look will");
    }
  }

  let isLooking = false;
  async function lookAll(): Promise<void> {
    if (isLooking) return;
    isLooking = true;
    for (const [tenantId, waiters] of byTenant) await look(tenantId, waiters);
    isLooking = false;
  }
  const timer = setInterval(() => void lookAll(), lookEveryMs);
  timer.unref();

  return {
    add(waiter) {
      const { identity, clientId } = waiter.follower;
      const { tenantId, scopes } = identity;
      const unwatch = hints.watch(hintKeys(tenantId, audiencesOf({ scopes, clientId })), waiter.wake);
      const waiters = byTenant.get(tenantId) ?? new Set();
      byTenant.set(tenantId, waiters.add(waiter));
      return () => {
        unwatch();
        waiters.delete(waiter);
        if (waiters.size === 0 && byTenant.get(tenantId) === waiters) byTenant.delete(tenantId);
      };
    },
    close: () => clearInterval(timer),
  };
}
