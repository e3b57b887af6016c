import type { OperationClass } from "../platform/config/schema.ts";
import { canonicalJson, mergePatch } from "../platform/json-text.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { Upstream, UpstreamAnswer } from "../upstream/upstream.ts";

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
  firstSentAt: Date;
  lastSentAt: Date;
}

export interface EffectContext {
  upstream: Upstream;
  entity: string;
  /** The mutation's data in the phone's shape, references substituted. For an update, the patch. */
  data: string;
  /** For an update, the whole record after it. */
  whole: string;
  /** The upstream's ID of the record; for a create, the ID that we choose if the upstream lets us. */
  id: string | undefined;
  /** `urn:uuid:…`, for creates. */
  tempId: string | undefined;
  /** The upstream's version that we know. */
  version: string | undefined;
  /** The client named the version that its change was based on, so no other may be overwritten. */
  isGuarded: boolean;
  history: History;
  /** The database's notion is not needed here: only spans of minutes count. */
  nowMs: number;
  call: CallFacts;
  /** Called before each call that may take effect. */
  onSend: () => void;
}

export interface CallFacts {
  mayStart: () => void;
  signal: AbortSignal;
  actor: string;
  requestId: string;
  idempotencyKey: string;
}

type Resolver = (context: EffectContext) => Promise<Effect>;

/** One resolver for each class of what an upstream can guarantee; see docs/guarantees.md. */
export const createResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": async (context) => {
    if (isKeyForgotten(context, "create")) return await adoptOrPark(context);
    return await sendUnlessInProgress(context, create);
  },
  upsert: create,
  "client-id": async (context) => {
    if (context.history.possiblySent) {
      const current = await read(context);
      if (current) return isOurs(current, context.data) ? applied(current) : conflict(current);
    }
    return await onConflict(create(context), async () => {
      const current = await read(context);
      return current && isOurs(current, context.data) ? applied(current) : conflict(current);
    });
  },
  conditional: async (context) => {
    if (context.history.possiblySent) return await adoptOrPark(context);
    return await onConflict(create(context), () =>
      Promise.resolve({ kind: "conflict", current: undefined, wasRead: false }),
    );
  },
  lookup: async (context) => {
    if (!context.history.possiblySent) return await create(context);
    const found = await lookup(context);
    if (found.length > 1) return unclear("several records carry our reference");
    if (found[0]) return applied(found[0]);
    return await afterQuarantine(context, create);
  },
  opaque: (context) => (context.history.possiblySent ? parkUnclear() : create(context)),
};

export const updateResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": async (context) => {
    if (isKeyForgotten(context, "update")) {
      const current = await read(context);
      return current && isOurs(current, context.data)
        ? applied(current)
        : unclear("the key is no longer recognised");
    }
    return await sendUnlessInProgress(context, update);
  },
  upsert: update,
  "client-id": update,
  conditional: updateConditionally,
  lookup: async (context) => {
    if (!context.history.possiblySent) return await update(context);
    const current = await read(context);
    if (!current) return conflict(undefined);
    return isOurs(current, context.data) ? applied(current) : await afterQuarantine(context, update);
  },
  opaque: (context) => (context.history.possiblySent ? parkUnclear() : update(context)),
};

export const deleteResolvers: Record<OperationClass, Resolver> = {
  "idempotency-key": (context) => sendUnlessInProgress(context, remove),
  upsert: remove,
  "client-id": remove,
  conditional: async (context) =>
    await onConflict(remove(context), async () => {
      const current = await read(context);
      if (!current) return applied(undefined);
      return context.isGuarded ? conflict(current) : await remove({ ...context, version: current.version });
    }),
  lookup: remove,
  opaque: (context) => (context.history.possiblySent ? parkUnclear() : remove(context)),
};

async function create(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, id, tempId, call, onSend } = context;
  onSend();
  return applied(await upstream.create({ ...call, entity, data, id, tempId }));
}

async function update(context: EffectContext): Promise<Effect> {
  const { upstream, entity, data, whole, version, tempId, call, onSend } = context;
  onSend();
  return applied(
    await upstream.update({ ...call, entity, id: idOf(context), patch: data, data: whole, version, tempId }),
  );
}

/** A record that is no longer there is deleted, whoever did it. */
async function remove(context: EffectContext): Promise<Effect> {
  const { upstream, entity, version, call, onSend } = context;
  onSend();
  try {
    await upstream.remove({ ...call, entity, id: idOf(context), version });
  } catch (error) {
    if (!(error instanceof UpstreamError && (error.status === 404 || error.status === 410))) throw error;
  }
  return applied(undefined);
}

async function updateConditionally(context: EffectContext): Promise<Effect> {
  const settled = async (current: UpstreamAnswer | undefined): Promise<Effect> => {
    if (!current) return conflict(undefined);
    if (isOurs(current, context.data)) return applied(current);
    if (context.isGuarded) return conflict(current);
    return await update(rebased(context, current));
  };
  if (context.history.possiblySent || context.version === undefined) {
    const current = await read(context);
    if (!current || isOurs(current, context.data)) return await settled(current);
    if (context.version !== undefined && current.version !== context.version) return await settled(current);
    return await onConflict(update(rebased(context, current)), async () => settled(await read(context)));
  }
  return await onConflict(update(context), async () => settled(await read(context)));
}

function rebased(context: EffectContext, current: UpstreamAnswer): EffectContext {
  return { ...context, version: current.version, whole: mergePatch(current.data, context.data) };
}

async function read({ upstream, entity, id, call }: EffectContext): Promise<UpstreamAnswer | undefined> {
  return id === undefined ? undefined : await upstream.read({ ...call, entity, id });
}

async function lookup({ upstream, entity, tempId, call }: EffectContext): Promise<UpstreamAnswer[]> {
  return tempId === undefined ? [] : await upstream.lookup({ ...call, entity, tempId });
}

async function adoptOrPark(context: EffectContext): Promise<Effect> {
  if (context.upstream.entity(context.entity)?.lookup === undefined) return await parkUnclear();
  const found = await lookup(context);
  return found.length === 1 ? applied(found[0]) : unclear(`${found.length} records carry our reference`);
}

/** Past this time an upstream that shows no effect of a call will not show one any more. */
async function afterQuarantine(context: EffectContext, send: Resolver): Promise<Effect> {
  const { timeoutMs, processingMs, indexLagMs } = context.upstream.config;
  const until = context.history.lastSentAt.getTime() + timeoutMs + processingMs + indexLagMs;
  if (until > context.nowMs) return { kind: "wait", forMs: until - context.nowMs };
  return await send(context);
}

/** A repeated key that answers 409 means that the first call is still being worked on. */
async function sendUnlessInProgress(context: EffectContext, send: Resolver): Promise<Effect> {
  try {
    return await send(context);
  } catch (error) {
    const isInProgress =
      error instanceof UpstreamError && error.status === 409 && context.history.possiblySent;
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

async function onConflict(call: Promise<Effect>, resolve: () => Promise<Effect>): Promise<Effect> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof UpstreamError && error.disposition === "conflict") return await resolve();
    throw error;
  }
}

function isKeyForgotten(
  { upstream, entity, history, nowMs }: EffectContext,
  op: "create" | "update",
): boolean {
  const keyTtlMs = upstream.entity(entity)?.[op].keyTtlMs;
  return history.possiblySent && keyTtlMs !== undefined && nowMs - history.firstSentAt.getTime() > keyTtlMs;
}

/** Whether the upstream's record holds what we sent. */
export function isOurs(current: UpstreamAnswer, data: string): boolean {
  if (current.data === undefined) return false;
  return canonicalJson(mergePatch(current.data, data)) === canonicalJson(current.data);
}

function idOf({ id }: EffectContext): string {
  if (id === undefined) throw new Error("a change of a record without an ID");
  return id;
}

function applied(answer: UpstreamAnswer | undefined): Effect {
  return { kind: "applied", answer };
}

function conflict(current: UpstreamAnswer | undefined): Effect {
  return { kind: "conflict", current, wasRead: true };
}

function unclear(why: string): Effect {
  return { kind: "unclear", why };
}

function parkUnclear(): Promise<Effect> {
  return Promise.resolve(unclear("the upstream can't tell whether an earlier call took effect"));
}
