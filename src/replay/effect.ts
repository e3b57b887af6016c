import type { Operation } from "../inbox/mutation.ts";
import { canonicalJson } from "../platform/canonical-json.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { UpstreamError } from "../upstream/connector.ts";
import type { Upstream, UpstreamAnswer } from "../upstream/upstream.ts";
import { holds } from "./holds.ts";

/** What became of a mutation at the upstream. What is thrown instead is an {UpstreamError} or a {MappingError}. */
export type Effect =
  | { kind: "applied"; answer: UpstreamAnswer | undefined }
  /** `current` as the upstream holds the record, if it was read; undefined when it is gone there. */
  | { kind: "conflict"; current: UpstreamAnswer | undefined; wasRead: boolean }
  /** The record is not what it was when the rules allowed the change. */
  | { kind: "rejected"; problem: StoredProblem }
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
  /** What stands against making the change on the record as it was just read; undefined when nothing does. */
  objection: (current: UpstreamAnswer) => Effect | undefined;
  /** Told of the record as it holds the change already: others may have changed it besides. */
  foundDone: (current: UpstreamAnswer) => void;
  /** Where an answer does not tell the record's state, it is read. */
  readsBack: boolean;
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

/** Brings a mutation about once, whatever is known of earlier calls. */
export type Resolver = (context: EffectContext) => Promise<Effect>;

export function isConflict(error: unknown): error is UpstreamError {
  return error instanceof UpstreamError && error.disposition === "conflict" && !error.systemic;
}

/** Whether the upstream's record holds what we sent. */
export function isOurs(
  { data: current }: UpstreamAnswer,
  { data, dataLater }: Pick<EffectContext, "data" | "dataLater">,
): boolean {
  return current !== undefined && [data, ...dataLater].some((sent) => holds(current, sent));
}

/** Whether somebody else may have changed the upstream's record since the state that we know. */
export function isForeign(current: UpstreamAnswer, { before }: EffectContext): boolean {
  if (current.data === undefined || before === null) return true;
  return canonicalJson(current.data) !== canonicalJson(before);
}

export function applied(answer: UpstreamAnswer | undefined): Effect {
  return { kind: "applied", answer };
}

/** The record is not there any more: what a delete wants, and what an update has to be told. */
export function gone({ op }: EffectContext): Effect {
  return op === "delete" ? applied(undefined) : conflict(undefined);
}

export function conflict(current: UpstreamAnswer | undefined): Effect {
  return { kind: "conflict", current, wasRead: true };
}

export function unclear(why: string): Effect {
  return { kind: "unclear", why };
}
