import { mergePatch } from "../platform/json-text.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { read } from "./effect-calls.ts";
import {
  applied,
  conflict,
  gone,
  isConflict,
  type Effect,
  type EffectContext,
  type Resolver,
} from "./effect.ts";

/** Somebody else may change the record between our reading it and our call; not for ever. */
const triesMax = 3;

/**
 * Changes a record only as it was last seen. One that has moved is looked at: if nothing stands against it, the change is
 * made on what is there. Without a version it would be made on anything. An upstream that goes on refusing a record that
 * has not moved means something else by it.
 */
export async function changeConditionally(
  context: EffectContext,
  send: Resolver,
  isDone: (current: UpstreamAnswer) => boolean,
): Promise<Effect> {
  let { version, whole } = context;
  let refused: string | undefined;
  let mustLook = context.history.possiblySent || version === undefined;
  for (let tries = 1; tries <= triesMax; tries++) {
    if (mustLook) {
      const current = await read(context);
      if (!current) return gone(context);
      if (context.history.possiblySent && isDone(current)) {
        context.foundDone(current);
        return applied(current);
      }
      const objection = context.objection(current);
      if (objection) return objection;
      if (refused !== undefined && refused === current.version && tries === triesMax)
        return conflict(current);
      version = current.version;
      whole = mergePatch(current.data, context.data);
      if (version === undefined && context.upstream.config.role === "primary") throw unversioned();
    }
    try {
      const effect = await send({ ...context, version, whole });
      return mustLook ? withWhole(effect, context, whole) : effect;
    } catch (error) {
      if (!isConflict(error)) throw error;
      if (error.status === 404 || error.status === 410) return gone(context);
      mustLook = true;
      refused = version;
    }
  }
  throw new UpstreamError("the record changes all the time", { certainty: "refused", disposition: "retry" });
}

function unversioned(): UpstreamError {
  return new UpstreamError("the upstream tells no version of the record", {
    certainty: "not-sent",
    disposition: "park",
  });
}

/** What was known of the record before is not what it was made of; an answer without it must not bring that back. */
function withWhole(effect: Effect, { op, id }: EffectContext, whole: string): Effect {
  if (effect.kind !== "applied" || op !== "update" || id === undefined) return effect;
  if (effect.answer?.data !== undefined) return effect;
  return applied({ id, version: effect.answer?.version, data: whole });
}
