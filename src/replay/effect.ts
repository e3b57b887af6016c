import type { Operation } from "../inbox/mutation.ts";
import type { EntityConfig, OperationClass } from "../platform/config/schema.ts";
import { canonicalJson } from "../platform/canonical-json.ts";
import { mergePatch } from "../platform/json-text.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { Upstream, UpstreamAnswer } from "../upstream/upstream.ts";
import { holds } from "./holds.ts";

/** What became of a mutation at the upstream. What is thrown instead is an {UpstreamError} or a {MappingError}. */
export type Effect =
  | { kind: "applied"; answer: UpstreamAnswer | undefined }
  /** `current` as the upstream holds the record, if it was read; undefined when it is gone there. */
  | { kind: "conflict"; current: UpstreamAnswer | undefined; wasRead: boolean }
  /** Whether it took effect can't be found out; a person decides. */
  | { kind: "unclear"; why: string }
  /** It can't be found out yet. */
  | { kind: "wait"; forMs: number };

/** What is known of earlier calls for the mutation. */
export interface History {
  /** An earlier call may have taken effect. */
  possiblySent: boolean;
  /** Only a recovery says so: it may also be that there was no call at all. */
  isAssumed: boolean;
  firstSentAt: Date;
  lastSentAt: Date;
}

export interface EffectContext {
  upstream: Upstream;
  entity: string;
  op: Operation;
  /** The mutation's data in the phone's shape, references substituted. For an update, the patch. */
  data: string;
  /** The same, as the client's later changes of the record left it, if they took effect as well: after each of them. */
  dataLater: string[];
  /** For an update, the whole record after it. */
  whole: string;
  /** The record before the change as we know it, in the phone's shape; null for a create. */
  before: string | null;
  /** The upstream's ID of the record; for a create, the ID that we choose if the upstream lets us. */
  id: string | undefined;
  /** `urn:uuid:…`, for creates. */
  tempId: string | undefined;
  /** The upstream's version that we know. */
  version: string | undefined;
  /** The client named the version that its change was based on, so no other may be overwritten. */
  isGuarded: boolean;
  history: History;
  /** On the database's clock. */
  nowMs: number;
  call: CallFacts;
  /** Makes a call that may take effect, and notes what became of it. */
  change: <T>(call: () => Promise<T>) => Promise<T>;
}

export interface CallFacts {
  mayStart: () => void;
  onStatus: (status: number) => void;
  signal: AbortSignal;
  actor: string | undefined;
  requestId: string | undefined;
  idempotencyKey: string;
}

type Resolver = (context: EffectContext) => Promise<Effect>;

/** One resolver for each class of what an upstream can guarantee; see docs/guarantees.md. */
export const createResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": async (context) => {
    if (isKeyForgotten(context, "create")) return await adoptOrPark(context);
    return await sendUnlessInProgress(context, create);
  },
  upsert: async (context) => (await adoptForgotten(context)) ?? (await create(context)),
  "client-id": createUnderId,
  conditional: async (context) => {
    if (context.id !== undefined) return await createUnderId(context);
    return context.history.possiblySent ? await adoptOrPark(context) : await create(context);
  },
  lookup: async (context) => {
    if (!context.history.possiblySent) return await create(context);
    const found = await lookup(context);
    if (found.length > 1) return unclear("several records carry our reference");
    if (found[0]) return applied(found[0]);
    return await afterQuarantine(context, create);
  },
  opaque: (context) => (context.history.possiblySent ? parkUnclear(context) : create(context)),
};

export const updateResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": async (context) => {
    if (isKeyForgotten(context, "update")) {
      const current = await read(context);
      return current && isOurs(current, context)
        ? applied(current)
        : isForgottenOnly(context, current)
          ? await update(context)
          : unclear("the key is no longer recognised");
    }
    const effect = await sendUnlessInProgress(context, update);
    // A repeated key may be answered as the first call was, with the record as it stood then.
    return context.history.possiblySent ? applied(await read(context)) : effect;
  },
  upsert: update,
  "client-id": update,
  conditional: (context) => changeConditionally(context, update, (current) => isOurs(current, context)),
  lookup: async (context) => {
    if (!context.history.possiblySent) return await update(context);
    const current = await read(context);
    if (!current) return conflict(undefined);
    return isOurs(current, context) ? applied(current) : await afterQuarantine(context, update);
  },
  opaque: (context) => (context.history.possiblySent ? parkUnclear(context) : update(context)),
};

export const deleteResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": (context) => sendUnlessInProgress(context, remove),
  upsert: remove,
  "client-id": remove,
  conditional: (context) => changeConditionally(context, remove, () => false),
  lookup: remove,
  opaque: (context) => (context.history.possiblySent ? parkUnclear(context) : remove(context)),
};

/**
 * Whether it can be found out what an earlier call did, or a repeat is recognised. Where neither is so, only a person can
 * have it sent again.
 *
 * @param ageMs how long ago the first call was.
 */
export function canResolve(config: EntityConfig, op: Operation, ageMs: number): boolean {
  const { class: ability, method, keyTtlMs } = config[op];
  const canLookUp = op === "create" && config.lookup !== undefined;
  switch (ability) {
    case "opaque":
      return false;
    case "idempotency-key":
      return op === "delete" || canLookUp || keyTtlMs === undefined || ageMs <= keyTtlMs;
    case "conditional":
      return op !== "create" || canLookUp || method === "PUT";
    case "upsert":
    case "client-id":
    case "lookup":
      return true;
  }
}

async function create(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, id, tempId, call, change } = context;
  return applied(await change(() => upstream.create({ ...call, entity, data, id, tempId })));
}

async function update(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, whole, version, tempId, call, change } = context;
  const named = { ...call, entity, id: idOf(context), version, tempId };
  return applied(await change(() => upstream.update({ ...named, patch: data, data: whole })));
}

/** A record that is no longer there is deleted, whoever did it; unless the configuration says what else that means. */
async function remove(context: EffectContext): Promise<Effect> {
  const { upstream, entity, version, call, change } = context;
  try {
    await change(() => upstream.remove({ ...call, entity, id: idOf(context), version }));
  } catch (error) {
    if (!isConflict(error) || (error.status !== 404 && error.status !== 410)) throw error;
  }
  return applied(undefined);
}

/**
 * What a create made before a recovery is adopted as it is by now: to send it again would undo later changes. Nobody else
 * has the temp ID.
 */
async function adoptForgotten(context: EffectContext): Promise<Effect | undefined> {
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
function isForgottenOnly(context: EffectContext, current: UpstreamAnswer | undefined): boolean {
  return context.history.isAssumed && current !== undefined && !isForeign(current, context);
}

/** Under an ID that we choose there is our record or a stranger's. */
async function createUnderId(context: EffectContext): Promise<Effect> {
  const forgotten = await adoptForgotten(context);
  if (forgotten) return forgotten;
  const compared = (current: UpstreamAnswer): Effect =>
    isOurs(current, context) ? applied(current) : conflict(current);
  if (context.history.possiblySent) {
    const current = await read(context);
    if (current) return compared(current);
  }
  try {
    return await create(context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    const current = await read(context);
    return current ? compared(current) : conflict(undefined);
  }
}

/** Somebody else may change the record between our reading it and our call; not for ever. */
const triesMax = 3;

/**
 * Changes a record only as it was last seen. One that has moved is looked at: a client that named the version that its
 * change is based on gets a conflict if the content is another one; else the change is made on what is there now.
 */
async function changeConditionally(
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

function isForeign(current: UpstreamAnswer, { before }: EffectContext): boolean {
  if (current.data === undefined || before === null) return true;
  return canonicalJson(current.data) !== canonicalJson(before);
}

async function read({ upstream, entity, id, call }: EffectContext): Promise<UpstreamAnswer | undefined> {
  return id === undefined ? undefined : await upstream.read({ ...call, entity, id });
}

async function lookup({ upstream, entity, tempId, call }: EffectContext): Promise<UpstreamAnswer[]> {
  return tempId === undefined ? [] : await upstream.lookup({ ...call, entity, tempId });
}

async function adoptOrPark(context: EffectContext): Promise<Effect> {
  if (context.upstream.entity(context.entity)?.lookup === undefined) return await parkUnclear(context);
  const found = await lookup(context);
  if (found.length === 0 && context.history.isAssumed) return await afterQuarantine(context, create);
  return found.length === 1 ? applied(found[0]) : unclear(`${found.length} records carry our reference`);
}

/** Past this time an upstream that shows no effect of a call will not show one any more. */
async function afterQuarantine(context: EffectContext, send: Resolver): Promise<Effect> {
  const forMs = quarantineMsLeft(context);
  return forMs > 0 ? { kind: "wait", forMs } : await send(context);
}

function quarantineMsLeft({ upstream, history, nowMs }: EffectContext): number {
  const { timeoutMs, processingMs, indexLagMs } = upstream.config;
  return history.lastSentAt.getTime() + timeoutMs + processingMs + indexLagMs - nowMs;
}

/** A repeated key that answers 409 means that the first call is still being worked on. */
async function sendUnlessInProgress(context: EffectContext, send: Resolver): Promise<Effect> {
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

export function isConflict(error: unknown): error is UpstreamError {
  return error instanceof UpstreamError && error.disposition === "conflict" && !error.systemic;
}

function isKeyForgotten(
  { upstream, entity, history, nowMs }: EffectContext,
  op: "create" | "update",
): boolean {
  const keyTtlMs = upstream.entity(entity)?.[op].keyTtlMs;
  return history.possiblySent && keyTtlMs !== undefined && nowMs - history.firstSentAt.getTime() > keyTtlMs;
}

/** Whether the upstream's record holds what we sent. */
export function isOurs(
  { data: current }: UpstreamAnswer,
  { data, dataLater }: Pick<EffectContext, "data" | "dataLater">,
): boolean {
  return current !== undefined && [data, ...dataLater].some((sent) => holds(current, sent));
}

function idOf({ id }: EffectContext): string {
  if (id === undefined) throw new Error("a change of a record without an ID");
  return id;
}

function applied(answer: UpstreamAnswer | undefined): Effect {
  return { kind: "applied", answer };
}

/** The record is not there any more: what a delete wants, and what an update has to be told. */
function gone({ op }: EffectContext): Effect {
  return op === "delete" ? applied(undefined) : conflict(undefined);
}

function conflict(current: UpstreamAnswer | undefined): Effect {
  return { kind: "conflict", current, wasRead: true };
}

function unclear(why: string): Effect {
  return { kind: "unclear", why };
}

function parkUnclear({ history }: EffectContext): Promise<Effect> {
  return Promise.resolve(
    unclear(
      history.isAssumed
        ? "it may have been sent before the database was restored, and the upstream can't tell"
        : "the upstream can't tell whether an earlier call took effect",
    ),
  );
}
