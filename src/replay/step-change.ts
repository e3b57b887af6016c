import { UpstreamError } from "../upstream/connector.ts";
import { sendsRecord } from "../upstream/sends-record.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import type { Attempt } from "./attempt-under-way.ts";
import { beforeSending } from "./before-sending.ts";
import { changeCompared } from "./change-compared.ts";
import { isVersioned, judgeClaimed } from "./claimed.ts";
import { isAsKnown, isConflicting, mayConflict } from "./conflict-policy.ts";
import { conflict, isConflict, isOurs, type Effect, type EffectContext, type Resolver } from "./effect.ts";
import { afterChange, faultIn, noSuchRecord, type Judgement, type Judges, type Target } from "./judge.ts";
import type { ReadyMutation } from "./prepare.ts";
import { deleteResolvers, updateResolvers } from "./resolvers.ts";
import { ensureLease, isShadow, type Slice } from "./slice.ts";
import { toVerdict, type Verdict } from "./verdict.ts";

type Read = () => Promise<UpstreamAnswer | undefined>;
type Allowed = Extract<Judgement, { kind: "allowed" }>;

/** Updates or deletes a record at the upstream, unless the author may not, or others have changed it. */
export async function replayChange(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  const { mutation, serverId = "" } = ready;
  const read: Read = async () => {
    await ensureLease(slice);
    return await slice.upstream.read({ ...attempt.context.call, entity: mutation.entity, id: serverId });
  };
  const { wasAllowed = false, isAssumed = false } = attempt.delivery ?? {};
  const judge = (): Promise<Judgement> =>
    judges.change(slice, ready, () => read().catch(noneIfRefused), { wasAllowed, isAssumed });
  const judgement = await judgeClaimed(slice, ready, judge);
  switch (judgement.kind) {
    case "rejected":
    case "busy":
      return judgement;
    case "gone":
      return goneBefore(serverId, ready, attempt);
    case "deleted":
      return alreadyDeleted(slice, ready, judgement.target, attempt);
    case "allowed": {
      const effect = await change(slice, ready, attempt, { ...judgement, read });
      return toVerdict(slice, ready, effect, judgement.target, attempt);
    }
  }
}

/** Makes the change as the operation's class does it, under what the entity's policy says. */
async function change(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  { read, ...judged }: Allowed & { read: Read },
): Promise<Effect> {
  const { mutation, config, serverId } = ready;
  const { target, isBased } = judged;
  const context: EffectContext = {
    ...attempt.context,
    id: serverId,
    whole: afterChange(target, ready),
    before: target.data,
    version: target.upstreamVersion ?? undefined,
    ...(!isShadow(slice) && {
      objection: objecting(ready, attempt, judged),
      foundDone: (current: UpstreamAnswer) => {
        const own = { ...target, data: afterChange(target, ready) };
        attempt.isOnOthers ||= !isAsKnown(current, own, ready);
      },
      readsBack: !isVersioned(config),
    }),
  };
  // What may have been sent before may itself be what moved the version; then the record holds it.
  const isStale = !isBased && !context.history.possiblySent;
  const objection = isStale ? context.objection(asKnown(serverId, target)) : undefined;
  if (objection) return objection;
  const operation = mutation.op === "delete" ? config.delete : config.update;
  const resolver = (mutation.op === "delete" ? deleteResolvers : updateResolvers)[operation.class];
  const resolve: Resolver = async (now) => {
    await beforeSending(slice, ready, attempt, operation.class === "opaque");
    return await resolver(now);
  };
  if (mustCompare(slice, ready, attempt, judged)) return await changeCompared(context, read, resolve);
  const effect = await changeOrConflict(context, resolve, read);
  // What was not compared before tells afterwards whether others had changed the record.
  if (operation.class !== "conditional" && effect.kind === "applied" && effect.answer)
    context.foundDone(effect.answer);
  return effect;
}

/** Whether the record has to be read before it is changed: its upstream won't refuse what others stand in the way of. */
function mustCompare(
  slice: Slice,
  ready: ReadyMutation,
  { context: { history } }: Attempt,
  { isBased }: Allowed,
): boolean {
  const { config, mutation } = ready;
  const operation = mutation.op === "delete" ? config.delete : config.update;
  if (isShadow(slice) || operation.class === "conditional") return false;
  // Whether it was done before is what a person finds out; where others have changed the record, it is not sent again.
  if (operation.class === "opaque" && history.possiblySent && isBased) return false;
  // What is sent whole is made of the record as it is.
  const isWhole = mutation.op === "update" && sendsRecord(config.update);
  return isWhole || mayConflict(ready) || (history.possiblySent && !isBased);
}

/** What stands against the change of a record that is not as it was known: the rules, or the entity's policy. */
function objecting(ready: ReadyMutation, attempt: Attempt, judged: Allowed): EffectContext["objection"] {
  const { target, isBased } = judged;
  return (current) => {
    const isKnown = isAsKnown(current, target, ready);
    if (isKnown && isBased) return undefined;
    attempt.isOnOthers ||= !isKnown;
    if (current.data === undefined) return mayConflict(ready) ? conflict(current) : undefined;
    const fault = attempt.delivery?.wasAllowed ? undefined : faultIn(ready, current.data);
    if (fault) return { kind: "rejected", problem: fault };
    return isConflicting(ready, judged, current.data) ? conflict(current) : undefined;
  };
}

function asKnown(id = "", { data, upstreamVersion }: Target): UpstreamAnswer {
  return { id, version: upstreamVersion ?? undefined, data: data ?? undefined };
}

/** A change that the upstream refused because the record is not as expected ends with the record as it is. */
async function changeOrConflict(context: EffectContext, resolve: Resolver, read: Read): Promise<Effect> {
  try {
    return await resolve(context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    const current = await read();
    // What an earlier call did may itself be what is in the way.
    const { history, op } = context;
    const isDone = op === "delete" ? !current : history.possiblySent && current && isOurs(current, context);
    return isDone ? { kind: "applied", answer: current } : conflict(current);
  }
}

/** An upstream that won't even look for such an ID has no such record; nor has one that can't be asked for it. */
function noneIfRefused(error: unknown): undefined {
  if (!(error instanceof UpstreamError)) throw error;
  const isUnaskable = error.certainty === "not-sent" && error.disposition === "park";
  if (error.disposition === "reject" || isUnaskable) return undefined;
  throw error;
}

/** An earlier call of this very delete may have been what removed it. */
function goneBefore(
  serverId: string,
  { mutation }: ReadyMutation,
  { context: { history } }: Attempt,
): Verdict {
  if (mutation.op !== "delete" || !history.possiblySent) return { kind: "rejected", problem: noSuchRecord };
  return { kind: "applied", serverId, record: undefined, version: undefined, history };
}

/** What a delete wants; an update is told so. */
function alreadyDeleted(slice: Slice, ready: ReadyMutation, target: Target, attempt: Attempt): Verdict {
  const { history } = attempt.context;
  if (ready.mutation.op !== "delete") {
    const effect = { kind: "conflict", current: undefined, wasRead: false } as const;
    return toVerdict(slice, ready, effect, target, attempt);
  }
  const { serverId = "" } = ready;
  return { kind: "applied", serverId, record: undefined, version: target.stored?.version, history };
}
