import type { AppliedMutation } from "../change-feed/applied-log.ts";
import type { RecordWrite } from "../change-feed/write.ts";
import { scopesOf } from "../records/scopes.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { afterChange, ownBase, type Target } from "./judge.ts";
import type { ReadyMutation } from "./prepare.ts";
import type { Slice } from "./slice.ts";

/** The mutation as those who follow the primary have to know it. */
export function appliedMutation({
  mutation: { id, op, occurredAt, data = "{}" },
  author: { userId, requestId },
  data: asSent,
}: ReadyMutation): AppliedMutation {
  const patch = op === "delete" ? undefined : { asMeant: data, asSent };
  return { id, op, userId, requestId, occurredAt, patch };
}

/** What there is to write of a record, or else the version that it has already. */
interface Change {
  record: RecordWrite | undefined;
  version: number | undefined;
}

/** The record after our own change. */
export function toChanged(
  { claim }: Slice,
  ready: ReadyMutation,
  target: Target | undefined,
  {
    answer,
    isCrossed,
    isOnOthers,
  }: { answer: UpstreamAnswer | undefined; isCrossed: boolean; isOnOthers: boolean },
): Change {
  if (!target) throw new Error("a change without its record");
  const { mutation, config } = ready;
  const isDelete = mutation.op === "delete";
  const data = isDelete ? null : (answer?.data ?? afterChange(target, ready));
  const record: RecordWrite = {
    entity: mutation.entity,
    serverId: ready.serverId ?? "",
    begunAt: target.stored?.feedPosition ?? 0,
    begunVersion: target.stored?.version ?? 0,
    data,
    scopes: data === null ? scopesBefore(ready, target) : scopesOf(config.scopes, data),
    upstreamVersion: answer?.version ?? null,
    tempId: null,
    createdBy: null,
    changedBy: claim.clientId,
    changedBase: isOnOthers ? null : ownBase(claim.clientId, target.stored),
    before: target.data,
    // An earlier call may have been the one that took effect, before what others did since.
    mutation: { ...appliedMutation(ready), isCrossed },
  };
  return { record, version: undefined };
}

/** The record as somebody else left it, if it was asked for and is news. */
export function toCurrent(
  ready: ReadyMutation,
  target: Target | undefined,
  found: { current: UpstreamAnswer | undefined; wasRead: boolean },
): Change {
  const stored = target?.stored;
  const data = found.current === undefined ? null : found.current.data;
  const isKnown = data === target?.data && (found.current?.version ?? null) === target?.upstreamVersion;
  if (!target || !found.wasRead || data === undefined || isKnown) {
    return { record: undefined, version: stored?.version };
  }
  const record: RecordWrite = {
    entity: ready.mutation.entity,
    serverId: ready.serverId ?? "",
    begunAt: stored?.feedPosition ?? 0,
    data,
    scopes: data === null ? scopesBefore(ready, target) : scopesOf(ready.config.scopes, data),
    upstreamVersion: found.current?.version ?? null,
    tempId: null,
    createdBy: null,
    changedBy: null,
    changedBase: null,
    before: target.data,
  };
  return { record, version: undefined };
}

function scopesBefore({ config }: ReadyMutation, { stored, data }: Target): string[] {
  return stored?.scopes ?? (data === null ? [] : scopesOf(config.scopes, data));
}
