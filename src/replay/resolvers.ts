import type { Operation } from "../inbox/mutation.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { OperationClass } from "../platform/config/operation-schema.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import {
  adoptForgotten,
  adoptOrPark,
  afterQuarantine,
  isForgottenOnly,
  isKeyForgotten,
  parkUnclear,
  sendUnlessInProgress,
} from "./after-unclear.ts";
import { changeConditionally } from "./change-conditionally.ts";
import { create, lookup, read, remove, update } from "./effect-calls.ts";
import {
  applied,
  conflict,
  isConflict,
  isOurs,
  unclear,
  type Effect,
  type EffectContext,
  type Resolver,
} from "./effect.ts";

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
