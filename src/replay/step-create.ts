import type { RecordWrite } from "../change-feed/write.ts";
import { scopesOf } from "../records/scopes.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { historyAfter, type Attempt } from "./attempt-under-way.ts";
import { beforeSending } from "./before-sending.ts";
import { claimRecord, isVersioned } from "./claimed.ts";
import { read, withState } from "./effect-calls.ts";
import {
  applied,
  conflict,
  isConflict,
  isOurs,
  type Effect,
  type EffectContext,
  type History,
} from "./effect.ts";
import type { Judges } from "./judge.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { appliedMutation } from "./record-after.ts";
import { createResolvers } from "./resolvers.ts";
import { ensureLease, isShadow, type Slice } from "./slice.ts";
import { toVerdict, type Verdict } from "./verdict.ts";

/** Makes a record at the upstream, unless the author may not. */
export async function replayCreate(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  const fault = judges.create(ready);
  if (fault) return { kind: "rejected", problem: fault };
  const { config, data } = ready;
  const id = chosenId(ready);
  const context = { ...attempt.context, id, whole: data, version: undefined, before: null };
  const found = await inTheWay(slice, ready, context);
  if (found?.kind === "busy") return found;
  if (!found) await beforeSending(slice, ready, attempt, config.create.class === "opaque");
  const effect = found ?? (await createOrConflict(context));
  if (effect.kind !== "applied") return toVerdict(slice, ready, effect, undefined, attempt);
  const createdId = effect.answer?.id ?? id;
  if (createdId === undefined) return await withoutId(slice, ready, attempt);
  const readsBack = !isShadow(slice) && !isVersioned(config);
  const answer = await withState({ ...context, id: createdId, readsBack }, effect.answer);
  return created(slice, ready, createdId, answer, historyAfter(slice, attempt));
}

/**
 * What there is under the ID that the client itself has chosen, where the upstream would write over it. Nobody has a temp
 * ID but its create.
 */
async function inTheWay(
  slice: Slice,
  ready: ReadyMutation,
  context: EffectContext,
): Promise<Effect | { kind: "busy"; blockedBy: string } | undefined> {
  const { create } = ready.config;
  const isRefused = create.method !== "PUT" || create.class === "conditional";
  if (ready.serverId === undefined || isRefused || isShadow(slice)) return undefined;
  const claimed = await claimRecord(slice, ready);
  if (claimed.kind === "busy") return { kind: "busy", blockedBy: claimed.mutationId };
  await ensureLease(slice);
  const current = await read(context);
  if (!current) return undefined;
  return isOurs(current, context) ? applied(current) : conflict(current);
}

/** The ID that a create gives its record, where the upstream lets us choose. */
export function chosenId({ config, tempId, serverId }: ReadyMutation): string | undefined {
  const choosesId = config.create.class === "client-id" || config.create.method === "PUT";
  return choosesId ? (tempId ?? serverId) : undefined;
}

/** Another record is in the way; unless it is the one that an earlier call made. */
async function createOrConflict(context: EffectContext): Promise<Effect> {
  try {
    return await createResolvers[context.upstream.entity(context.entity)!.create.class](context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    if (context.history.possiblySent && !context.history.isAssumed) {
      return { kind: "unclear", why: "a repeated create was answered with a conflict" };
    }
    return { kind: "conflict", current: undefined, wasRead: false };
  }
}

/** The upstream took the record and did not say which it is: it is looked for, or a person is asked. */
async function withoutId(slice: Slice, ready: ReadyMutation, attempt: Attempt): Promise<Verdict> {
  const { upstream, entity, tempId, call } = attempt.context;
  const history = historyAfter(slice, attempt);
  const canLookUp = ready.config.lookup !== undefined && tempId !== undefined;
  const found = canLookUp ? await upstream.lookup({ ...call, entity, tempId }) : [];
  if (found.length === 1 && found[0]) return created(slice, ready, found[0].id, found[0], history);
  const detail = "The upstream created the record and did not tell its ID.";
  return { kind: "parked", problem: problem("upstream-unexpected", detail), history, error: undefined };
}

export function created(
  { claim }: Slice,
  ready: ReadyMutation,
  serverId: string,
  answer: UpstreamAnswer | undefined,
  history: History,
): Verdict {
  const { mutation, config, tempId, data } = ready;
  const after = answer?.data ?? data;
  const record: RecordWrite = {
    entity: mutation.entity,
    serverId,
    begunAt: 0,
    begunVersion: 0,
    data: after,
    scopes: scopesOf(config.scopes, after),
    upstreamVersion: answer?.version ?? null,
    tempId: tempId ?? null,
    createdBy: claim.clientId,
    changedBy: claim.clientId,
    changedBase: 0,
    mutation: appliedMutation(ready),
  };
  return { kind: "applied", serverId, record, version: undefined, history };
}
