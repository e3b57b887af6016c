import { setTimeout as delay } from "node:timers/promises";

import { UpstreamError } from "../../upstream/connector.ts";
import { backoffMs } from "../backoff.ts";
import type { ReplayDeps } from "../worker.ts";
import { listHeld, readUnlisted } from "./listing.ts";
import { addShadow, type Added } from "./register.ts";
import type { Shadow } from "./worker.ts";

export interface AddingDeps extends Pick<ReplayDeps, "db" | "log"> {
  secrets: readonly string[];
  /** When the configuration was read, on the monotonic clock, or somewhat earlier. */
  configReadAt: number;
  /** Called when a shadow has got its lanes. */
  onAdded: (shadow: Shadow) => void;
}

/** Adds shadows beside everything else: what one holds may have to be listed, and it may be away for long. */
export interface Adding {
  /** Adds the shadow unless it is known, or its turn is under way. Nobody waits for it. */
  look: (shadow: Shadow) => void;
  stop: () => Promise<void>;
}

export function startAdding(deps: AddingDeps): Adding {
  const stop = new AbortController();
  const underWay = new Map<Shadow, Promise<void>>();
  const checked = new Set<Shadow>();

  async function add(shadow: Shadow): Promise<void> {
    try {
      const added = await addInTime(deps, shadow, stop.signal);
      if (added === "now") deps.onAdded(shadow);
      if (added === undefined || checked.has(shadow)) return;
      await warnOfUnlisted(deps, shadow);
      checked.add(shadow);
    } catch (error) {
      const of = { tenantId: shadow.tenantId, upstream: shadow.upstream.id };
      if (!stop.signal.aborted)
        deps.log.warn({ ...of, err: error }, "a shadow could not be looked at; the next sweep will");
    } finally {
      underWay.delete(shadow);
    }
  }

  return {
    look(shadow) {
      if (!underWay.has(shadow) && !stop.signal.aborted) underWay.set(shadow, add(shadow));
    },
    async stop() {
      stop.abort();
      await Promise.all(underWay.values());
    },
  };
}

const pauseMsMin = 100;

/** Adds a shadow; one that does not answer is asked again. Undefined when that is left to others, or to later. */
async function addInTime(
  { db, secrets, log, configReadAt }: AddingDeps,
  { tenantId, upstream, primary }: Shadow,
  signal: AbortSignal,
): Promise<Added | undefined> {
  const id = { tenantId, upstreamId: upstream.id };
  const held = { tenantId, upstream, secrets };
  const configs = { shadow: upstream.config, primary, ageMs: () => performance.now() - configReadAt };
  for (let failures = 1; ; failures++) {
    try {
      return await addShadow(db, id, configs, () => listHeld(db, held, signal));
    } catch (error) {
      if (signal.aborted) return undefined;
      if (!(error instanceof UpstreamError)) throw error;
      // Its answer may tell of payload.
      const { status, certainty, message: reason, retryAfterMs } = error;
      const dueInMs = Math.max(pauseMsMin, backoffMs(failures, upstream.config.retry, { retryAfterMs }));
      const facts = { tenantId, upstream: upstream.id, status, certainty, reason, failures, dueInMs };
      log.warn(facts, "a shadow's records could not be listed; they are asked for again");
      await delay(dueInMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }
}

async function warnOfUnlisted(
  { db, secrets, log }: AddingDeps,
  { tenantId, upstream }: Shadow,
): Promise<void> {
  const entities = await readUnlisted(db, { tenantId, upstream, secrets });
  if (entities.length === 0) return;
  const of = { tenantId, upstream: upstream.id, entities };
  log.warn(of, "the shadow was added without this `match`, or under another secret: see docs/guarantees.md");
}
