import type { Create, TempIdState } from "../id-map/id-map.ts";
import type { Mutation } from "../inbox/mutation.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { ErrorCode } from "../platform/errors.ts";
import { onlyWhatIsIn } from "../platform/merge-patch.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { tempUuid, toTempId } from "../platform/uuid.ts";
import { recordKey } from "../records/record.ts";
import type { UpstreamError } from "../upstream/connector.ts";
import type { Author } from "./blocks.ts";
import { isMerged } from "./conflict-policy.ts";
import { firstLive, resolve } from "./names.ts";
import { recordsIn, referencesIn, substitute } from "./references.ts";
import { whileLeased, type Blocked, type Slice } from "./slice.ts";
import { touchedIn } from "./three-way.ts";

/** A mutation with its references resolved, ready to be judged and sent. */
export interface ReadyMutation {
  mutation: Mutation;
  author: Author;
  config: EntityConfig;
  /** The record as it is named at the upstream; undefined for the create of a temp ID. */
  serverId: string | undefined;
  /** The temp ID (a bare UUID) that a create gives. */
  tempId: string | undefined;
  /** Names the record among those that are waited for. */
  recordKey: string;
  /** The temp IDs that it needs and that name no record yet. */
  needs: string[];
  /** All records that it names: a delete of one of them waits for it. */
  refersTo: string[];
  /** With server IDs in the place of temp IDs. */
  data: string;
  /** What the phone saw of what it changed; undefined when it does not say. With server IDs like `data`. */
  base?: string | undefined;
  /** What tells the upstream that a call is a repeat; by default the mutation's id. */
  idempotencyKey?: string;
}

export type Prepared =
  | { kind: "ready"; ready: ReadyMutation }
  | ({ kind: "held" | "waiting"; blockedBy: string } & Keys)
  | { kind: "rejected"; problem: StoredProblem }
  /** `error`: no mutation of the kind fits at the moment. */
  | ({ kind: "misfit"; problem: StoredProblem; error?: UpstreamError | undefined } & Keys);

type Keys = Pick<Blocked, "recordKey" | "refersTo">;

/**
 * Resolves what a mutation names: its record, its references, and what it has to wait for.
 *
 * @param wasSent it was found ready before, and may have taken effect.
 */
export async function prepare(
  slice: Slice,
  mutation: Mutation,
  author: Author,
  wasSent: boolean,
): Promise<Prepared> {
  const config = slice.upstream.entity(mutation.entity);
  const own = tempUuid(mutation.recordId);
  if (!config) {
    return {
      kind: "misfit",
      problem: problem("unknown-entity", "The entity is no longer configured."),
      recordKey: keyOf(mutation, own),
      refersTo: [],
    };
  }
  const references = referencesIn(mutation.data, config).filter((uuid) => uuid !== own);
  const seen = config.conflict === "merge" ? referencesIn(mutation.base, config) : [];
  const named = [...new Set([...(own === undefined ? [] : [own]), ...references, ...seen])];
  const states = await resolve(slice, named, mutation.op === "create" ? mutation.id : undefined);
  const names = { own, references, states };
  const ready = toMerged(toReady(mutation, author, config, names));
  if (wasSent) return { kind: "ready", ready };
  return (
    misnamed(mutation, names) ??
    behindBlocker(slice, ready, await namesOf(slice, ready, own)) ??
    (await dependent(slice, ready)) ??
    unresolved(slice, ready, names) ?? { kind: "ready", ready }
  );
}

interface Names {
  own: string | undefined;
  references: string[];
  states: Map<string, TempIdState>;
}

function toReady(
  mutation: Mutation,
  author: Author,
  config: EntityConfig,
  { own, references, states }: Names,
): ReadyMutation {
  const mapped = new Map<string, string>();
  for (const [tempId, state] of states) if (state.kind === "mapped") mapped.set(tempId, state.serverId);
  const serverId = own === undefined ? mutation.recordId : mapped.get(own);
  const isNew = mutation.op === "create" && own !== undefined;
  const records = references
    .flatMap((uuid) => states.get(uuid) ?? [])
    .filter((state) => state.kind === "mapped");
  return {
    mutation,
    author,
    config,
    serverId: isNew ? undefined : serverId,
    tempId: isNew ? own : undefined,
    recordKey: keyOf(mutation, isNew || serverId === undefined ? own : undefined, serverId),
    needs: references.filter((uuid) => !mapped.has(uuid)).map(toTempId),
    refersTo: [
      ...references.map(toTempId),
      ...[...records, ...recordsIn(mutation.data, config)].map(recordKey),
    ],
    data: substitute(mutation.data ?? "{}", config, mapped),
    base: mutation.base === undefined ? undefined : substitute(mutation.base, config, mapped),
  };
}

/** Of what is merged only what the phone has touched is sent, judged and followed by others. */
function toMerged(ready: ReadyMutation): ReadyMutation {
  const { mutation, base } = ready;
  if (base === undefined || !isMerged(ready)) return ready;
  const data = touchedIn(ready.data, base);
  return { ...ready, data, mutation: { ...mutation, data: onlyWhatIsIn(data, mutation.data ?? "{}") } };
}

function keyOf(
  { entity, recordId }: Mutation,
  tempId: string | undefined,
  serverId: string | undefined = recordId,
): string {
  return tempId === undefined ? recordKey({ entity, serverId }) : toTempId(tempId);
}

/** What is wrong with the name of the mutation's own record, if anything. */
function misnamed(mutation: Mutation, { own, states }: Names): Prepared | undefined {
  const state = own === undefined ? undefined : states.get(own);
  if (mutation.op === "create") {
    if (state && isTaken(mutation, state)) {
      return rejected("temp-id-in-use", "The temp ID already names a record, or one that is being created.");
    }
  } else if (state?.kind === "mapped" && state.entity !== mutation.entity) {
    return rejected("not-found", "There is no such record.");
  }
  return undefined;
}

/** Of several creates of one temp ID, the one that was accepted first and did not fail has it. */
function isTaken({ id }: Mutation, state: TempIdState): boolean {
  if (state.kind === "mapped") return true;
  const live = firstLive(state);
  return live !== undefined && live !== id;
}

/** What its record is called by those that are waited for: some of them came before it had an ID of the upstream's. */
async function namesOf(slice: Slice, ready: ReadyMutation, own: string | undefined): Promise<string[]> {
  if (own !== undefined) return [ready.recordKey, toTempId(own)];
  const { entity, recordId: serverId } = ready.mutation;
  if (slice.blocked.length === 0) return [ready.recordKey];
  const stored = await whileLeased(slice, () => slice.store.readRecord({ entity, serverId }));
  return stored?.tempId ? [ready.recordKey, toTempId(stored.tempId)] : [ready.recordKey];
}

/** The parked or held mutation that this one depends on: same record, a reference to it, or named in `dependsOn`. */
function behindBlocker(slice: Slice, ready: ReadyMutation, names: string[]): Prepared | undefined {
  const { dependsOn, op } = ready.mutation;
  const blocker = slice.blocked.find(
    (earlier) =>
      earlier.seq < ready.mutation.seq &&
      (dependsOn.includes(earlier.mutationId) ||
        names.includes(earlier.recordKey) ||
        ready.needs.includes(earlier.recordKey) ||
        (op === "delete" && earlier.refersTo.some((key) => names.includes(key)))),
  );
  return blocker && { kind: "held", blockedBy: blocker.mutationId, ...keysOf(ready) };
}

/** Whether it waits for, or falls with, a mutation that it names in `dependsOn`. */
async function dependent(slice: Slice, ready: ReadyMutation): Promise<Prepared | undefined> {
  const { dependsOn } = ready.mutation;
  if (dependsOn.length === 0) return undefined;
  const known = await whileLeased(slice, () => slice.store.readDependencies(dependsOn));
  for (const id of dependsOn) {
    const dependency = known.get(id);
    if (dependency?.status === null && dependency.clientId !== slice.claim.clientId) {
      return { kind: "waiting", blockedBy: id, ...keysOf(ready) };
    }
    const failed =
      dependency?.isCreate && (dependency.status === "rejected" || dependency.status === "conflict");
    // Uploaded later, the client could have read that outcome, and meant it all the same.
    if (failed && dependency.endedAt && dependency.endedAt >= ready.author.receivedAt) {
      return rejected("dependency-failed", `The create ${id} was not done.`);
    }
  }
  return undefined;
}

/** What has to be done about the first temp ID that names no record yet, if there is one. */
function unresolved(
  { claim }: Slice,
  ready: ReadyMutation,
  { own, references, states }: Names,
): Prepared | undefined {
  const needed = own === undefined || ready.mutation.op === "create" ? references : [own, ...references];
  for (const tempId of needed) {
    const state = states.get(tempId);
    if (!state || state.kind === "mapped") continue;
    // In the client's own log a create that comes later can't be waited for: order would never let it come.
    const isBefore = ({ clientId, seq }: Create) => clientId !== claim.clientId || seq < ready.mutation.seq;
    const creates = state.creates.filter(isBefore);
    const open = creates.find(({ status }) => status === null);
    if (open) return behind(open, claim.clientId, ready);
    if (creates.length > 0)
      return rejected("dependency-failed", `The create of ${toTempId(tempId)} was not done.`);
    return rejected(
      "unknown-reference",
      state.creates.length === 0
        ? `Nobody has created ${toTempId(tempId)}.`
        : `${toTempId(tempId)} is created only after it is referred to.`,
    );
  }
  return undefined;
}

/** Another lane's create is waited for. The client's own, which has been passed, is parked or held. */
function behind({ mutationId, clientId }: Create, ownClientId: string, ready: ReadyMutation): Prepared {
  const kind = clientId === ownClientId ? "held" : "waiting";
  return { kind, blockedBy: mutationId, ...keysOf(ready) };
}

function keysOf({ recordKey: key, refersTo }: ReadyMutation): Keys {
  return { recordKey: key, refersTo };
}

function rejected(code: ErrorCode, detail: string): Prepared {
  return { kind: "rejected", problem: problem(code, detail) };
}

export function problem(code: ErrorCode, detail: string): StoredProblem {
  return { code, detail };
}
