import type { StoredProblem } from "../platform/schema.ts";
import { mergePatch } from "../platform/json-text.ts";
import type { StoredRecord } from "../records/record.ts";
import { canSee, isAllowed, scopesOf, setsField } from "../records/scopes.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import { isMerged } from "./conflict-policy.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { whileLeased, type Slice } from "./slice.ts";

/** The record that a mutation changes, as it is known when the call begins. */
export interface Target {
  /** Tidegate's copy; undefined for a record that it has not seen. */
  stored: StoredRecord | undefined;
  /** In the phone's shape; null when the record was deleted. */
  data: string | null;
  upstreamVersion: string | null;
}

export type Judgement =
  /** `isBased`: what is known of the record is what the mutation was based on. */
  | { kind: "allowed"; target: Target; isBased: boolean }
  | { kind: "rejected"; problem: StoredProblem }
  /** Neither we nor the upstream know such a record. */
  | { kind: "gone" }
  | { kind: "deleted"; target: Target };

/** Whether a mutation may be made, and what is known of the record that it changes. */
export interface Judges {
  create: (ready: ReadyMutation) => StoredProblem | undefined;
  change: (...asked: Parameters<typeof judgeChange>) => Promise<Judgement>;
}

/** The same for a record that does not exist and for one that the author may not see. */
export const noSuchRecord = problem("not-found", "There is no such record.");

/** Whether the author may create this. */
export function judgeCreate({ config, author, data }: ReadyMutation): StoredProblem | undefined {
  if (!isAllowed(author, config.write?.create, data)) {
    return problem("not-allowed", "The rules do not let this user create this record.");
  }
  return fieldProblem({ config, author, data }, data);
}

/**
 * Whether the author may make this change to the record as it is. One that was allowed and sent before is not asked
 * again: it may be its own effect that now speaks against it.
 *
 * A record outside the author's scopes is asked for at the upstream like one that is not known here at all, so that
 * neither the answer nor the time it takes tells the two apart.
 *
 * @param read asks the upstream for the record.
 */
export async function judgeChange(
  slice: Slice,
  ready: ReadyMutation,
  read: () => Promise<UpstreamAnswer | undefined>,
  { wasAllowed, isAssumed }: { wasAllowed: boolean; isAssumed: boolean },
): Promise<Judgement> {
  const target = await findTarget(slice, ready, read, wasAllowed);
  if (target === "gone") return { kind: "gone" };
  if (!target) return { kind: "rejected", problem: noSuchRecord };
  if (target.data === null) return { kind: "deleted", target };
  const fault = wasAllowed ? undefined : faultOf(ready, target.data);
  if (fault) return { kind: "rejected", problem: fault };
  return { kind: "allowed", target, isBased: isBasedOn(slice, ready, target.stored, isAssumed) };
}

/** What the rules say against the change of a record that others have left so. */
export function faultIn(ready: ReadyMutation, current: string): StoredProblem | undefined {
  const { author, config } = ready;
  if (!canSee(author, scopesOf(config.scopes, current))) return noSuchRecord;
  return faultOf(ready, current);
}

function faultOf(ready: ReadyMutation, before: string): StoredProblem | undefined {
  const { config, author, mutation } = ready;
  const rules = mutation.op === "delete" ? config.write?.delete : config.write?.update;
  if (!isAllowed(author, rules, before)) {
    return problem("not-allowed", `The rules do not let this user ${mutation.op} this record.`);
  }
  return mutation.op === "update" ? fieldProblem(ready, before) : undefined;
}

async function findTarget(
  slice: Slice,
  { mutation, author, config, serverId }: ReadyMutation,
  read: () => Promise<UpstreamAnswer | undefined>,
  wasAllowed: boolean,
): Promise<Target | "gone" | undefined> {
  const key = { entity: mutation.entity, serverId: serverId ?? "" };
  const stored = await whileLeased(slice, () => slice.store.readRecord(key));
  const sees = (scopes: string[]): boolean => wasAllowed || canSee(author, scopes);
  if (stored && sees(stored.scopes)) {
    return { stored, data: stored.data, upstreamVersion: stored.upstreamVersion };
  }
  const answer = await read();
  if (!answer && !stored) return "gone";
  if (answer?.data === undefined || !sees(scopesOf(config.scopes, answer.data))) return undefined;
  return { stored, data: answer.data, upstreamVersion: answer.version ?? null };
}

/** Fields that need more than the right to create or update; the rules look at the record as it is before. */
function fieldProblem(
  { config, author, data }: Pick<ReadyMutation, "config" | "author" | "data">,
  before: string,
): StoredProblem | undefined {
  for (const [pointer, rules] of Object.entries(config.write?.fields ?? {})) {
    if (setsField(data, pointer) && !isAllowed(author, rules, before)) {
      return problem("not-allowed", `The rules do not let this user set ${pointer}.`);
    }
  }
  return undefined;
}

/**
 * Whether the record has not changed since the version that the mutation names. A merge that names none looks at what its
 * author says to have seen. What the same client did since then,
 * and nobody else in between, does not count: own edits don't conflict with themselves. Of a mutation from before a
 * recovery, a version that was given out again since is not the one that it names.
 */
function isBasedOn(
  { claim }: Slice,
  ready: ReadyMutation,
  stored: StoredRecord | undefined,
  isAssumed: boolean,
): boolean {
  const { baseVersion } = ready.mutation;
  if (!stored) return true;
  const isOwnChain = stored.changedBy === claim.clientId && stored.changedBase !== null;
  // Nobody else has ever changed what the same client made.
  if (baseVersion === null) return !isMerged(ready) || (isOwnChain && stored.changedBase === 0);
  const base = Number(baseVersion);
  const isGivenAgain = isAssumed && !isOwnChain && isAfter(stored.changedAt, claim.recoveredAt);
  if (base === stored.version) return !isGivenAgain;
  return isOwnChain && base >= (stored.changedBase ?? 0) && base < stored.version;
}

function isAfter(changedAt: Date | undefined, recoveredAt: Date | undefined): boolean {
  return changedAt !== undefined && recoveredAt !== undefined && changedAt > recoveredAt;
}

/** Where the client's own uninterrupted edits of the record began: a version. */
export function ownBase(clientId: string, stored: StoredRecord | undefined): number {
  if (!stored) return 0;
  return stored.changedBy === clientId && stored.changedBase !== null ? stored.changedBase : stored.version;
}

/** The record after the change, in the phone's shape. */
export function afterChange(target: Target, ready: ReadyMutation): string {
  return mergePatch(target.data ?? undefined, ready.data);
}
