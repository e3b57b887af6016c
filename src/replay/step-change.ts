import { UpstreamError } from "../upstream/connector.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import type { Attempt } from "./attempt-under-way.ts";
import { beforeSending } from "./before-sending.ts";
import { isConflict, isOurs, type Effect, type EffectContext } from "./effect.ts";
import { afterChange, noSuchRecord, type Judges, type Target } from "./judge.ts";
import type { ReadyMutation } from "./prepare.ts";
import { deleteResolvers, updateResolvers } from "./resolvers.ts";
import { ensureLease, type Slice } from "./slice.ts";
import { toVerdict, type Verdict } from "./verdict.ts";

/** Updates or deletes a record at the upstream as it is judged to be, unless the author may not, or it has changed. */
export async function replayChange(
  slice: Slice,
  ready: ReadyMutation,
  attempt: Attempt,
  judges: Judges,
): Promise<Verdict> {
  const { mutation, serverId = "", config } = ready;
  const read = async (): Promise<UpstreamAnswer | undefined> => {
    await ensureLease(slice);
    return await slice.upstream.read({ ...attempt.context.call, entity: mutation.entity, id: serverId });
  };
  const readUnseen = (): Promise<UpstreamAnswer | undefined> => read().catch(noneIfRefused);
  const wasAllowed = attempt.delivery?.wasAllowed ?? false;
  const { isAssumed = false } = attempt.delivery ?? {};
  const judgement = await judges.change(slice, ready, readUnseen, { wasAllowed, isAssumed });
  if (judgement.kind === "rejected") return judgement;
  if (judgement.kind === "gone") return goneBefore(serverId, ready, attempt);
  const { target } = judgement;
  if (target.data === null && mutation.op === "delete") return alreadyGone(serverId, target, attempt);
  const context: EffectContext = {
    ...attempt.context,
    id: serverId,
    whole: afterChange(target, ready),
    before: target.data,
    version: target.upstreamVersion ?? undefined,
  };
  if (judgement.kind === "conflict") {
    const effect = await settleStale(context, ready, target, read);
    return toVerdict(slice, ready, effect, target, attempt);
  }
  const operation = mutation.op === "delete" ? config.delete : config.update;
  await beforeSending(slice, ready, attempt, operation.class === "opaque");
  const resolvers = mutation.op === "delete" ? deleteResolvers : updateResolvers;
  const effect = await changeOrConflict(context, resolvers[operation.class], read);
  return toVerdict(slice, ready, effect, target, attempt);
}

/** What may have been sent before may itself be what moved the version; then the record holds it. */
async function settleStale(
  context: EffectContext,
  { mutation }: ReadyMutation,
  target: Target,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  if (!context.history.possiblySent || target.data === null)
    return { kind: "conflict", current: undefined, wasRead: false };
  const current = await read();
  const isDone = mutation.op === "delete" ? !current : current !== undefined && isOurs(current, context);
  return isDone ? { kind: "applied", answer: current } : { kind: "conflict", current, wasRead: true };
}

/** A change that the upstream refused because the record is not as expected ends with the record as it is. */
async function changeOrConflict(
  context: EffectContext,
  resolve: (context: EffectContext) => Promise<Effect>,
  read: () => Promise<UpstreamAnswer | undefined>,
): Promise<Effect> {
  try {
    return await resolve(context);
  } catch (error) {
    if (!isConflict(error)) throw error;
    const current = await read();
    // What an earlier call did may itself be what is in the way.
    const { history, op } = context;
    const isDone = op === "delete" ? !current : history.possiblySent && current && isOurs(current, context);
    return isDone ? { kind: "applied", answer: current } : { kind: "conflict", current, wasRead: true };
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

function alreadyGone(serverId: string, { stored }: Target, { context: { history } }: Attempt): Verdict {
  return { kind: "applied", serverId, record: undefined, version: stored?.version, history };
}
