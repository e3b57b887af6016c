import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { create, lookup, read } from "./effect-calls.ts";
import { applied, isForeign, unclear, type Effect, type EffectContext, type Resolver } from "./effect.ts";

/**
 * What a create made before a recovery is adopted as it is by now: to send it again would undo later changes. Nobody else
 * has the temp ID.
 */
export async function adoptForgotten(context: EffectContext): Promise<Effect | undefined> {
  const { history, tempId, id, upstream, entity } = context;
  if (!history.isAssumed || tempId === undefined) return undefined;
  if (id !== undefined) {
    const current = await read(context);
    return current && applied(current);
  }
  if (upstream.entity(entity)?.lookup === undefined) return undefined;
  const found = await lookup(context);
  if (found.length > 1) return unclear("several records carry our reference");
  return found[0] && applied(found[0]);
}

/** Nothing has changed since the state that we know: an update that a recovery only assumes was never made. */
export function isForgottenOnly(context: EffectContext, current: UpstreamAnswer | undefined): boolean {
  return context.history.isAssumed && current !== undefined && !isForeign(current, context);
}

/** The one record that carries our reference is ours; of several, or none after a call that left, a person decides. */
export async function adoptOrPark(context: EffectContext): Promise<Effect> {
  if (context.upstream.entity(context.entity)?.lookup === undefined) return await parkUnclear(context);
  const found = await lookup(context);
  if (found.length === 0 && context.history.isAssumed) return await afterQuarantine(context, create);
  return found.length === 1 ? applied(found[0]) : unclear(`${found.length} records carry our reference`);
}

/** Past this time an upstream that shows no effect of a call will not show one any more. */
export async function afterQuarantine(context: EffectContext, send: Resolver): Promise<Effect> {
  const forMs = quarantineMsLeft(context);
  return forMs > 0 ? { kind: "wait", forMs } : await send(context);
}

function quarantineMsLeft({ upstream, history, nowMs }: EffectContext): number {
  const { timeoutMs, processingMs, indexLagMs } = upstream.config;
  return history.lastSentAt.getTime() + timeoutMs + processingMs + indexLagMs - nowMs;
}

/** A repeated key that answers 409 means that the first call is still being worked on. */
export async function sendUnlessInProgress(context: EffectContext, send: Resolver): Promise<Effect> {
  try {
    return await send(context);
  } catch (error) {
    const { possiblySent, isAssumed } = context.history;
    const mayBeAtWork = possiblySent && (!isAssumed || quarantineMsLeft(context) > 0);
    const isInProgress = error instanceof UpstreamError && error.status === 409 && mayBeAtWork;
    if (!isInProgress) throw error;
    throw new UpstreamError("the upstream is still working on the first call", {
      certainty: "ambiguous",
      disposition: "retry",
      status: 409,
      retryAfterMs: error.retryAfterMs,
      cause: error,
    });
  }
}

/** The upstream would take a repeat for a new call. */
export function isKeyForgotten(
  { upstream, entity, history, nowMs }: EffectContext,
  op: "create" | "update",
): boolean {
  const keyTtlMs = upstream.entity(entity)?.[op].keyTtlMs;
  return history.possiblySent && keyTtlMs !== undefined && nowMs - history.firstSentAt.getTime() > keyTtlMs;
}

export function parkUnclear({ history }: EffectContext): Promise<Effect> {
  return Promise.resolve(
    unclear(
      history.isAssumed
        ? "it may have been sent before the database was restored, and the upstream can't tell"
        : "the upstream can't tell whether an earlier call took effect",
    ),
  );
}
