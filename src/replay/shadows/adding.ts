import { setTimeout as delay } from "node:timers/promises";

import { UpstreamError } from "../../upstream/connector.ts";
import { backoffMs } from "../backoff.ts";
import type { ReplayDeps } from "../worker.ts";
import { listHeld, readUnlisted } from "./listing.ts";
import { addShadow } from "./register.ts";
import type { Shadow } from "./worker.ts";

export interface AddingDeps extends Pick<ReplayDeps, "db" | "log"> {
  secrets: readonly string[];
}

/** When to look again whether another process, which does the same, has gone on. */
const othersMs = 5_000;

/**
 * Adds a shadow, however long that takes: what it holds may have to be listed, and it may be away meanwhile. Nobody waits
 * for it.
 *
 * @returns whether it was added before the signal.
 */
export async function addInTime(deps: AddingDeps, shadow: Shadow, signal: AbortSignal): Promise<boolean> {
  const { retry } = shadow.upstream.config;
  for (let failures = 0; !signal.aborted;) {
    try {
      if (await addOnce(deps, shadow, signal)) {
        await warnOfUnlisted(deps, shadow);
        return true;
      }
      failures = 0;
      const { tenantId, upstream } = shadow;
      deps.log.info(
        { tenantId, upstream: upstream.id },
        "another process adds the shadow; it is looked at again",
      );
      await pause(othersMs, signal);
    } catch (error) {
      if (signal.aborted) break;
      failures++;
      const dueInMs = Math.max(tryMsMin, backoffMs(failures, retry, { retryAfterMs: retryAfterMsOf(error) }));
      deps.log.warn({ ...factsOf(shadow, error), dueInMs }, "a shadow could not be added; it is tried again");
      await pause(dueInMs, signal);
    }
  }
  return false;
}

const tryMsMin = 100;

async function addOnce({ db, secrets }: AddingDeps, shadow: Shadow, signal: AbortSignal): Promise<boolean> {
  const { tenantId, upstream, primary } = shadow;
  const configs = { shadow: upstream.config, primary };
  const held = { tenantId, upstream, secrets };
  return await addShadow(db, { tenantId, upstreamId: upstream.id }, configs, () =>
    listHeld(db, held, signal),
  );
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

async function pause(forMs: number, signal: AbortSignal): Promise<void> {
  await delay(forMs, undefined, { signal, ref: false }).catch(() => undefined);
}

function retryAfterMsOf(error: unknown): number | undefined {
  return error instanceof UpstreamError ? error.retryAfterMs : undefined;
}

/** An upstream's answer may tell of payload. */
function factsOf({ tenantId, upstream }: Shadow, error: unknown): Record<string, unknown> {
  const of = { tenantId, upstream: upstream.id };
  if (!(error instanceof UpstreamError)) return { ...of, err: error };
  const { status, certainty, message } = error;
  return { ...of, status, certainty, reason: message };
}
