import { mergePatch } from "../platform/json-text.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { read } from "./effect-calls.ts";
import {
  applied,
  conflict,
  gone,
  isConflict,
  isForeign,
  type Effect,
  type EffectContext,
  type Resolver,
} from "./effect.ts";

/** Somebody else may change the record between our reading it and our call; not for ever. */
const triesMax = 3;

/**
 * Changes a record only as it was last seen. One that has moved is looked at: a client that named the version that its
 * change is based on gets a conflict if the content is another one; else the change is made on what is there now.
 */
export async function changeConditionally(
  context: EffectContext,
  send: Resolver,
  isDone: (current: UpstreamAnswer) => boolean,
): Promise<Effect> {
  let { version, whole } = context;
  let mustLook = context.history.possiblySent || version === undefined;
  for (let tries = 1; tries <= triesMax; tries++) {
    if (mustLook) {
      const current = await read(context);
      if (!current) return gone(context);
      if (isDone(current)) return applied(current);
      if (context.isGuarded && isForeign(current, context)) return conflict(current);
      version = current.version;
      whole = mergePatch(current.data, context.data);
    }
    try {
      return await send({ ...context, version, whole });
    } catch (error) {
      if (!isConflict(error)) throw error;
      if (error.status === 404 || error.status === 410) return gone(context);
      mustLook = true;
    }
  }
  throw new UpstreamError("the record changes all the time", { certainty: "refused", disposition: "retry" });
}
