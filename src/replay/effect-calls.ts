import { uuidOf } from "../platform/uuid.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import { sendsRecord } from "../upstream/sends-record.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { applied, isConflict, type Effect, type EffectContext } from "./effect.ts";

export async function create(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, id, tempId, call, change } = context;
  return applied(await change(() => upstream.create({ ...call, entity, data, id, tempId })));
}

export async function update(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, whole, version, tempId, call, change } = context;
  const idempotencyKey = keyOf(context);
  const named = { ...call, idempotencyKey, entity, id: idOf(context), version, tempId };
  const answer = await change(() => upstream.update({ ...named, patch: data, data: whole }));
  return applied(await withState(context, answer));
}

/**
 * A whole record is made of what was read, and a repeat is another call when that has changed: its key would be refused, or
 * answered as if it had been made.
 */
function keyOf({ upstream, entity, whole, call: { idempotencyKey } }: EffectContext): string {
  const config = upstream.entity(entity)?.update;
  return config && sendsRecord(config) ? uuidOf(`${idempotencyKey} ${whole}`) : idempotencyKey;
}

/**
 * The record after the change, as the upstream has it: what it does besides what it was told would else look like
 * somebody's change later. It may have changed all the same; then what was sent counts.
 */
export async function withState(
  context: EffectContext,
  answer: UpstreamAnswer | undefined,
): Promise<UpstreamAnswer | undefined> {
  const { readsBack, whole, id = "" } = context;
  if (!readsBack || answer?.data !== undefined) return answer;
  try {
    const found = await read(context);
    if (found) return found;
  } catch (error) {
    if (!(error instanceof UpstreamError) && !(error instanceof MappingError)) throw error;
  }
  return { ...answer, id, version: answer?.version, data: whole };
}

/** A record that is no longer there is deleted, whoever did it; unless the configuration says what else that means. */
export async function remove(context: EffectContext): Promise<Effect> {
  const { upstream, entity, version, call, change } = context;
  try {
    await change(() => upstream.remove({ ...call, entity, id: idOf(context), version }));
  } catch (error) {
    if (!isConflict(error) || (error.status !== 404 && error.status !== 410)) throw error;
  }
  return applied(undefined);
}

export async function read({
  upstream,
  entity,
  id,
  call,
}: EffectContext): Promise<UpstreamAnswer | undefined> {
  return id === undefined ? undefined : await upstream.read({ ...call, entity, id });
}

export async function lookup({ upstream, entity, tempId, call }: EffectContext): Promise<UpstreamAnswer[]> {
  return tempId === undefined ? [] : await upstream.lookup({ ...call, entity, tempId });
}

function idOf({ id }: EffectContext): string {
  if (id === undefined) throw new Error("a change of a record without an ID");
  return id;
}
