import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { isSameRecord } from "../records/same-record.ts";
import type { Target } from "./judge.ts";
import type { ReadyMutation } from "./prepare.ts";
import { isClash } from "./three-way.ts";

/** What an entity's policy says when a record is not what a mutation was based on; see docs/conflicts.md. */

/** Whether anything that others have changed can stand against the mutation at all. */
export function mayConflict(ready: ReadyMutation): boolean {
  const { mutation, config } = ready;
  if (isMerged(ready)) return true;
  return mutation.baseVersion !== null && config.conflict !== "client-wins";
}

/** A merge by what the phone saw needs no version. */
export function isMerged({ mutation, config, base }: ReadyMutation): boolean {
  const { op, baseVersion } = mutation;
  return config.conflict === "merge" && op === "update" && (base !== undefined || baseVersion !== null);
}

/**
 * Whether the mutation conflicts with the record as others have left it.
 *
 * @param isBased what is known of the record is what the mutation was based on, `target`; only `current` is another.
 */
export function isConflicting(
  ready: ReadyMutation,
  { target, isBased }: { target: Target; isBased: boolean },
  current: string,
): boolean {
  if (!isMerged(ready)) return mayConflict(ready);
  const known = isBased ? target.data : undefined;
  // Without a version, a field that the phone does not say what it saw of is made as it is meant.
  const before = ready.mutation.baseVersion === null ? current : known;
  return isClash(ready.data, { base: ready.base, before, current });
}

/** Whether an upstream's record is the one that is known. */
export function isAsKnown(
  { data, version }: UpstreamAnswer,
  target: Target,
  { config }: Pick<ReadyMutation, "config">,
): boolean {
  if (version !== undefined && version === target.upstreamVersion) return true;
  if (data === undefined || target.data === null) return false;
  return isSameRecord(target.data, data, config);
}
