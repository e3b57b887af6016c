import type { Operation } from "../../inbox/mutation.ts";
import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { isObject, slicesAt } from "../../platform/json-text.ts";
import { uuidOf } from "../../platform/uuid.ts";
import { recordKey, type RecordKey } from "../../records/record.ts";
import type { Target } from "../judge.ts";
import { resolve } from "../names.ts";
import { problem, type Prepared, type ReadyMutation } from "../prepare.ts";
import { sentBeforeRecovery } from "../recovery.ts";
import { whileLeased, type Slice } from "../slice.ts";
import type { FollowedEntry } from "./log.ts";
import {
  recordsNamedIn,
  tempIdsIn,
  withoutNames,
  withoutOwnFields,
  withOwnNames,
  type Names,
} from "./own-names.ts";
import { pairedOnly, referenceOf, type ShadowRecord } from "./records.ts";

/** A change in the shadow's own names, ready to be sent. */
export interface ReadyChange {
  kind: "ready";
  ready: ReadyMutation;
  /** For changes: the record afterwards, and the shadow's version of it. */
  target: Target;
  key: RecordKey;
  /** The position of the state that the shadow has then. */
  reached: number;
  /** References were left out that come later. */
  isIncomplete: boolean;
  /** A record that a create finds there may be an older state of it. */
  mayBeOlder: boolean;
}

/** Why it can't be sent; `op` is what it would do in the shadow, as far as that is known. */
type Unready = Exclude<Prepared, { kind: "ready" | "rejected" }> & { op: Operation };
export type PreparedChange = ReadyChange | Unready | { kind: "nothing" };

const nothing = { kind: "nothing" } as const;

/** What is to be done in the shadow, before its names are put in. */
export interface Plan {
  kind: "plan";
  entry: FollowedEntry;
  key: RecordKey;
  op: Operation;
  config: EntityConfig;
  own: ShadowRecord | undefined;
  /** The shadow had the record before, and has deleted it. */
  wasDeleted: boolean;
  /** The record for a create, the patch for an update. */
  data: string;
  /** The record afterwards. */
  whole: string;
}

/** A change in the shadow's own names, or what it has to wait for. */
export async function prepareFollowed(
  slice: Slice,
  entry: FollowedEntry,
  primary: UpstreamConfig,
): Promise<PreparedChange> {
  const plan = await planFollowed(slice, entry, primary);
  return plan.kind === "plan" ? await named(slice, plan) : plan;
}

/**
 * Finds out what a change means in the shadow: nothing, if it has it already; the create of the whole record, if it does
 * not have the record. Behind an earlier change of the record that has not ended that is not known yet.
 */
export async function planFollowed(
  slice: Slice,
  entry: FollowedEntry,
  primary: UpstreamConfig,
): Promise<Plan | Unready | { kind: "nothing" }> {
  const { mutation, change } = entry;
  const { upstream } = slice;
  const declared = upstream.entity(mutation.entity);
  if (!declared || (change.isForeign && upstream.config.follow !== true)) return nothing;
  const atPrimary = primary.entities[mutation.entity];
  const references = declared.references ?? atPrimary?.references;
  // The rules of who may write are the primary's.
  const { write: _, ...unruled } = declared;
  const config: EntityConfig = { ...unruled, ...(references && { references }) };
  const key = { entity: mutation.entity, serverId: mutation.recordId };
  const blocker = slice.blocked.find(
    (earlier) => earlier.seq < mutation.seq && earlier.recordKey === recordKey(key),
  );
  if (blocker) return { kind: "held", blockedBy: blocker.mutationId, ...keysOf({ key, op: mutation.op }) };
  const own = (await readShadowRecords(slice, [key])).get(recordKey(key));
  const plan = planOf(slice, { entry, key, config, own }, atPrimary);
  // What the shadow held before is paired also where nothing is created.
  const mayAct = (op: Operation): boolean =>
    config[op].enabled || (op === "create" && config.match !== undefined);
  return plan && mayAct(plan.op) ? plan : nothing;
}

async function readShadowRecords(slice: Slice, keys: RecordKey[]): Promise<Map<string, ShadowRecord>> {
  return await whileLeased(slice, () => slice.store.readShadowRecords(keys));
}

/** Undefined when there is nothing to do. */
function planOf(
  { upstream }: Slice,
  found: Pick<Plan, "entry" | "key" | "config" | "own">,
  atPrimary: EntityConfig | undefined,
): Plan | undefined {
  const { mutation, change } = found.entry;
  const own = found.own?.deleted === false ? found.own : undefined;
  if (own && own.reached >= change.reached) return undefined;
  if (change.isCompletion && !own?.isIncomplete) return undefined;
  const bare = (text: string): string => withoutOwnFields(text, atPrimary);
  const whole = bare(change.whole ?? "{}");
  const plan = { ...found, kind: "plan" as const, own, wasDeleted: found.own?.deleted === true, whole };
  if (mutation.op === "delete" || change.whole === undefined) {
    return own && mutation.op === "delete" ? { ...plan, op: "delete", data: "{}" } : undefined;
  }
  if (!own) {
    const data = mutation.op === "create" ? bare(mutation.data ?? change.whole) : whole;
    return { ...plan, op: "create", data };
  }
  const followed = upstream.config.follow === true ? change.others : undefined;
  const changed = own.reached === pairedOnly ? change.whole : (followed ?? mutation.data ?? change.whole);
  const data = bare(changed);
  const changesNothing = isObject(data) && slicesAt(data).length === 0;
  return changesNothing ? undefined : { ...plan, op: "update", data };
}

/** The change in the shadow's names, or what it has to wait for. */
async function named(slice: Slice, plan: Plan): Promise<PreparedChange> {
  const { records, named: referred } = await referencesOf(slice, plan);
  const found = await readShadowRecords(slice, referred);
  const names: Names = { records, ownIds: ownIdsOf(slice, referred, found) };
  const isOwn = (key: RecordKey): boolean => recordKey(key) === recordKey(plan.key);
  const missing = referred.filter((key) => !names.ownIds.has(recordKey(key)) && !isOwn(key));
  const lacking = await lackOf(slice, plan, { referred, missing });
  if (lacking === "none by now") return await named(slice, plan);
  if ("kind" in lacking) return lacking;
  const inOwnNames = (text: string): string =>
    withOwnNames(withoutNames(text, plan.config, lacking.left), plan.config, names);
  return toReady(slice, plan, {
    data: inOwnNames(plan.data),
    whole: inOwnNames(plan.whole),
    isIncomplete: lacking.left.size > 0,
  });
}

/** The records that the change refers to. */
async function referencesOf(
  slice: Slice,
  { data, whole, config }: Plan,
): Promise<{ records: Map<string, RecordKey>; named: RecordKey[] }> {
  const states = await resolve(slice, tempIdsIn([data, whole], config));
  const records = new Map<string, RecordKey>();
  for (const [tempId, state] of states) if (state.kind === "mapped") records.set(tempId, state);
  const all = [...records.values(), ...recordsNamedIn([data, whole], config)];
  const distinct = new Map(
    all.map(({ entity, serverId }) => [recordKey({ entity, serverId }), { entity, serverId }]),
  );
  return { records, named: [...distinct.values()] };
}

/** A record of an entity that the shadow does not have keeps the primary's name. */
function ownIdsOf(
  { upstream }: Slice,
  referred: RecordKey[],
  found: Map<string, ShadowRecord>,
): Map<string, string> {
  const ownIds = new Map<string, string>();
  for (const key of referred) {
    const ownId = upstream.entity(key.entity) ? found.get(recordKey(key))?.ownId : key.serverId;
    if (ownId !== undefined) ownIds.set(recordKey(key), ownId);
  }
  return ownIds;
}

/** What a change has to wait for, if anything; or the references that it has to do without for now, by `recordKey`. */
async function lackOf(
  slice: Slice,
  plan: Plan,
  { referred, missing }: { referred: RecordKey[]; missing: RecordKey[] },
): Promise<Unready | { left: Set<string> } | "none by now"> {
  const { mutation, change } = plan.entry;
  const isSeed = mutation.seq < 0;
  const left = new Set<string>();
  let needed = missing;
  if (isSeed && !change.isCompletion && referred.length > 0) {
    // Decided by the order alone, so that a repeated create says the same.
    const before = await whileLeased(slice, () =>
      slice.store.readSeededBefore({ keys: referred, position: mutation.seq }),
    );
    for (const key of referred)
      if (slice.upstream.entity(key.entity) && !before.has(recordKey(key))) left.add(recordKey(key));
    needed = missing.filter((key) => before.has(recordKey(key)));
  }
  if (needed.length === 0) return { left };
  const absent = needed.map((key) => ({ ...key, position: mutation.seq }));
  const absences = await whileLeased(slice, () => slice.store.readAbsences(absent));
  // Its lane has brought it between the two looks.
  if (absences.some(({ hasCome }) => hasCome)) return "none by now";
  for (const [index, key] of needed.entries()) {
    const { mayCome = true, blockedBy } = absences[index] ?? {};
    if (blockedBy !== undefined) return { kind: "held", blockedBy, ...keysOf(plan) };
    if (mayCome)
      return { kind: "waiting", blockedBy: referenceOf(slice.claim.tenantId, key), ...keysOf(plan) };
    const isLeft = isSeed && (await canDoWithout(slice, key));
    if (!isLeft) return { kind: "misfit", problem: unknownTo(key), ...keysOf(plan) };
    left.add(recordKey(key));
  }
  return { left };
}

/**
 * Whether a seed can do without a record: one that was deleted since the shadow was added, or that is of those that are not
 * created there; and one that came up after the seeds were listed, since the log brings it, and then the change that refers
 * to it. One that a person left out may still come.
 */
async function canDoWithout(slice: Slice, key: RecordKey): Promise<boolean> {
  const stored = await whileLeased(slice, () => slice.store.readRecord(key));
  if (stored === undefined) return false;
  const isMade = slice.upstream.entity(key.entity)?.create.enabled ?? false;
  if (stored.data === null || !isMade) return true;
  const seeded = await whileLeased(slice, () => slice.store.readSeededBefore({ keys: [key], position: 0 }));
  return seeded.size === 0;
}

function unknownTo({ entity }: RecordKey): ReturnType<typeof problem> {
  return problem("unknown-reference", `The shadow has no such ${entity} as the change refers to.`);
}

function keysOf({ key, op }: Pick<Plan, "key" | "op">): Pick<Unready, "recordKey" | "refersTo" | "op"> {
  return { recordKey: recordKey(key), refersTo: [], op };
}

function toReady(
  slice: Slice,
  plan: Plan,
  { data, whole, isIncomplete }: { data: string; whole: string; isIncomplete: boolean },
): ReadyChange {
  const { entry, key, op, config, own } = plan;
  const { mutation, author, change } = entry;
  const isWhole = mutation.seq < 0 || mutation.op !== "create";
  return {
    kind: "ready",
    key,
    isIncomplete,
    mayBeOlder: op === "create" && isWhole && isBeforeRecovery(slice, entry),
    // Of one that has to do without something, the log says all again.
    reached: isIncomplete ? 0 : change.isCompletion ? (own?.reached ?? 0) : change.reached,
    target: { stored: undefined, data: whole, upstreamVersion: own?.version ?? null },
    ready: {
      mutation: { ...mutation, op },
      author,
      config: isBeforeRecovery(slice, entry) ? comparing(config) : config,
      serverId: own?.ownId,
      tempId: change.reference,
      recordKey: recordKey(key),
      needs: [],
      refersTo: [],
      data,
      idempotencyKey: idempotencyKeyOf(slice, plan),
    },
  };
}

/** It may have been sent in a time that the database has forgotten. */
function isBeforeRecovery({ claim, leaseMs }: Slice, entry: FollowedEntry): boolean {
  return sentBeforeRecovery(entry, claim, leaseMs) !== undefined;
}

/**
 * A repeated key makes the shadow answer as if it had done again what it did then, and it has done others since: in which
 * order the primary takes them after a recovery decides, and what the record holds says what is left to do.
 */
function comparing(config: EntityConfig): EntityConfig {
  if (config.update.class !== "idempotency-key") return config;
  return { ...config, update: { ...config.update, class: "lookup" } };
}

/**
 * A record is created once, whichever of its changes brings that about: after a recovery it may be another one. Every
 * other call is recognised by its change, and never taken for one of the time that was forgotten.
 */
export function idempotencyKeyOf(
  slice: Slice,
  { entry, op, wasDeleted }: Pick<Plan, "entry" | "op" | "wasDeleted">,
): string {
  const { mutation, change } = entry;
  if (op === "create" && !wasDeleted) return uuidOf(`tidegate create ${change.reference}`);
  if (!isBeforeRecovery(slice, entry)) return mutation.id;
  return uuidOf(`tidegate change ${mutation.id} ${slice.claim.recoveredAt?.toISOString()}`);
}
