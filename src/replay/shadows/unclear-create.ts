import { UpstreamError } from "../../upstream/connector.ts";
import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { recordKey, type RecordKey } from "../../records/record.ts";
import { afterQuarantine } from "../after-unclear.ts";
import { historyAfter, startAttempt, type Attempt } from "../attempt-under-way.ts";
import { deliveryOf } from "../drain.ts";
import { lookup, read } from "../effect-calls.ts";
import { applied, conflict, unclear, type Effect, type EffectContext } from "../effect.ts";
import type { OpenDelivery } from "../open-delivery.ts";
import type { ReadyMutation } from "../prepare.ts";
import { ensureLease, whileLeased, type Slice } from "../slice.ts";
import { chosenId, created } from "../step-create.ts";
import { dispositionOf, toFailure, toVerdict, type Verdict } from "../verdict.ts";
import type { FollowedEntry } from "./log.ts";

/** A create that may have taken effect in the shadow, of a record that it is not meant to have by now. */
export interface UnclearCreate {
  key: RecordKey;
  ready: ReadyMutation;
  delivery: OpenDelivery;
}

/**
 * Whether an entry that comes to nothing may have made a record there, which nothing would ever remove: a seed whose record
 * is gone in the primary, or a change that the configuration does not let be made any more.
 */
export async function unclearCreateOf(
  slice: Slice,
  entry: FollowedEntry,
): Promise<UnclearCreate | undefined> {
  const config = absentIn(slice, entry);
  if (!config) return undefined;
  const { seq, id, entity, recordId } = entry.mutation;
  // What an owner that died may have sent is known of a seed alone: anything else would have come to nothing before, too.
  const isGoneSeed = seq < 0 && entry.change.whole === undefined && config.create.enabled;
  if (!isGoneSeed && !slice.recorded.has(id)) return undefined;
  const mutation = { ...entry.mutation, op: "create" as const };
  const delivery = deliveryOf(slice, { ...entry, mutation });
  if (!delivery?.possiblySent || delivery.isAssumed) return undefined;
  const key = { entity, serverId: recordId };
  if (await hasOwn(slice, key)) return undefined;
  const ready: ReadyMutation = {
    mutation,
    author: entry.author,
    config,
    serverId: undefined,
    tempId: entry.change.reference,
    recordKey: recordKey(key),
    needs: [],
    refersTo: [],
    data: "{}",
  };
  return { key, ready, delivery };
}

/** The entity's configuration, if the entry can have made a record of it. */
export function absentIn({ upstream }: Slice, { mutation, change }: FollowedEntry): EntityConfig | undefined {
  return mutation.op === "delete" || change.isCompletion ? undefined : upstream.entity(mutation.entity);
}

export async function hasOwn(slice: Slice, key: RecordKey): Promise<boolean> {
  const known = await whileLeased(slice, () => slice.store.readShadowRecords([key]));
  return known.get(recordKey(key))?.deleted === false;
}

/**
 * Looks for the record that the call may have made, and makes none. Undefined when it is certain that there is none.
 *
 * @throws {LaneLost}, or what nobody foresaw.
 */
export async function findMade(
  slice: Slice,
  { ready, delivery }: UnclearCreate,
): Promise<Verdict | undefined> {
  const attempt = startAttempt(slice, ready, delivery);
  const verdict = await look(slice, ready, attempt);
  if (verdict) slice.attempt = attempt.watch.toAttempt(dispositionOf(verdict, attempt));
  return verdict;
}

async function look(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict | undefined> {
  const id = chosenId(ready);
  try {
    await ensureLease(slice);
    const effect = await seek({ ...attempt.context, id, whole: "{}", version: undefined, before: null });
    if (effect.kind === "conflict") return undefined;
    const ownId = effect.kind === "applied" ? (effect.answer?.id ?? id) : undefined;
    if (effect.kind !== "applied" || ownId === undefined)
      return toVerdict(slice, ready, effect, undefined, attempt);
    return created(slice, ready, ownId, effect.answer, historyAfter(slice, attempt));
  } catch (error) {
    if (error instanceof UpstreamError) attempt.watch.failed(error);
    return toFailure(slice, ready, error, attempt);
  }
}

const isNone = (): Promise<Effect> => Promise.resolve(conflict(undefined));

/** By the ID that we chose, or by our reference; a conflict when there is none. */
async function seek(context: EffectContext): Promise<Effect> {
  if (context.id !== undefined) {
    const current = await read(context);
    return current ? applied(current) : await afterQuarantine(context, isNone);
  }
  if (context.upstream.entity(context.entity)?.lookup === undefined)
    return unclear(
      "the shadow can't tell whether an earlier call made the record, which it is not meant to have",
    );
  const [found, ...others] = await lookup(context);
  if (others.length > 0) return unclear("several records carry our reference");
  return found ? applied(found) : await afterQuarantine(context, isNone);
}
