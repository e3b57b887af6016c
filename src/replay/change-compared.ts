import { mergePatch } from "../platform/json-text.ts";
import { isSameRecord } from "../records/same-record.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { applied, conflict, gone, isConflict, isOurs, type Effect, type EffectContext } from "./effect.ts";
import type { Resolver } from "./effect.ts";

/** Only those can come between that work in the upstream itself; not for ever. */
const triesMax = 3;

/**
 * Changes a record of an upstream that has no versions, under a claim of it: reads it, and sends the change if nothing
 * stands against it. What the upstream then refuses as a conflict is looked at again; if the record has not moved, the
 * upstream means something else by it.
 *
 * @param read makes sure of the claim first.
 */
export async function changeCompared(
  context: EffectContext,
  read: () => Promise<UpstreamAnswer | undefined>,
  resolve: Resolver,
): Promise<Effect> {
  let refused: UpstreamAnswer | undefined;
  for (let tries = 1; tries <= triesMax; tries++) {
    const current = await read();
    if (!current) return gone(context);
    if (context.op === "update" && context.history.possiblySent && isOurs(current, context)) {
      context.foundDone(current);
      return applied(current);
    }
    const objection = context.objection(current);
    if (objection) return objection;
    if (refused && isUnmoved(context, refused, current)) return conflict(current);
    try {
      const whole = mergePatch(current.data, context.data);
      return await resolve({ ...context, version: current.version, whole });
    } catch (error) {
      if (!isConflict(error)) throw error;
      if (error.status === 404 || error.status === 410) return gone(context);
      refused = current;
    }
  }
  throw new UpstreamError("the record changes all the time", { certainty: "refused", disposition: "retry" });
}

function isUnmoved(
  { upstream, entity }: EffectContext,
  before: UpstreamAnswer,
  after: UpstreamAnswer,
): boolean {
  if (before.version !== after.version) return false;
  const config = upstream.entity(entity);
  if (before.data === undefined || after.data === undefined || !config) return before.data === after.data;
  return isSameRecord(before.data, after.data, config);
}
