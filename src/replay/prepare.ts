import type { Mutation } from "../inbox/mutation.ts";
import type { TempIdState } from "../id-map/id-map.ts";
import type { EntityConfig } from "../platform/config/schema.ts";
import type { ErrorCode } from "../platform/errors.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { tempUuid, toTempId } from "../platform/uuid.ts";
import { recordKey } from "../records/record.ts";
import type { Author } from "./lane.ts";
import { referencesIn, substitute } from "./references.ts";
import type { Blocked, Slice } from "./slice.ts";

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
  refersTo: string[];
  /** With server IDs in the place of temp IDs. */
  data: string;
}

export type Prepared =
  | { kind: "ready"; ready: ReadyMutation }
  | { kind: "held" | "waiting"; blockedBy: string; recordKey: string; refersTo: string[] }
  | { kind: "rejected"; problem: StoredProblem }
  | { kind: "misfit"; problem: StoredProblem };

/** Resolves what a mutation names: its record, its references, and what it has to wait for. */
export async function prepare(slice: Slice, mutation: Mutation, author: Author): Promise<Prepared> {
  const config = slice.upstream.entity(mutation.entity);
  if (!config) {
    return { kind: "misfit", problem: problem("unknown-entity", "The entity is no longer configured.") };
  }
  const own = tempUuid(mutation.recordId);
  const references = referencesIn(mutation.data, config).filter((uuid) => uuid !== own);
  const states = await resolve(slice, own === undefined ? references : [own, ...references]);
  const names = { own, references, states };
  const ready = toReady(mutation, author, config, names);
  const blocker = findBlocker(slice.blocked, mutation, ready);
  if (blocker) return { kind: "held", blockedBy: blocker, ...keysOf(ready) };
  return misnamed(slice, mutation, names, ready) ?? { kind: "ready", ready };
}

interface Names {
  own: string | undefined;
  references: string[];
  states: Map<string, TempIdState>;
}

async function resolve(slice: Slice, tempIds: string[]): Promise<Map<string, TempIdState>> {
  const open = tempIds.filter((tempId) => !slice.mapped.has(tempId));
  const found: Map<string, TempIdState> = open.length > 0 ? await slice.store.resolve(open) : new Map();
  for (const tempId of open) {
    const state = found.get(tempId);
    if (state?.kind === "mapped") slice.mapped.set(tempId, state);
  }
  return new Map(
    tempIds.map((tempId) => [tempId, slice.mapped.get(tempId) ?? found.get(tempId) ?? { kind: "unknown" }]),
  );
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
  return {
    mutation,
    author,
    config,
    serverId: isNew ? undefined : serverId,
    tempId: isNew ? own : undefined,
    recordKey:
      serverId === undefined || isNew
        ? toTempId(own ?? "")
        : recordKey({ entity: mutation.entity, serverId }),
    refersTo: references.filter((uuid) => !mapped.has(uuid)).map(toTempId),
    data: substitute(mutation.data ?? "{}", config, mapped),
  };
}

function keysOf({ recordKey: key, refersTo }: ReadyMutation): Pick<Blocked, "recordKey" | "refersTo"> {
  return { recordKey: key, refersTo };
}

/** The parked or held mutation that this one depends on: same record, a reference to it, or named in `dependsOn`. */
function findBlocker(
  blocked: Blocked[],
  { dependsOn, op }: Mutation,
  ready: ReadyMutation,
): string | undefined {
  return blocked.find(
    (earlier) =>
      dependsOn.includes(earlier.mutationId) ||
      earlier.recordKey === ready.recordKey ||
      ready.refersTo.includes(earlier.recordKey) ||
      (op === "delete" && earlier.refersTo.includes(ready.recordKey)),
  )?.mutationId;
}

/** What is wrong with the temp IDs that a mutation names, if anything. */
function misnamed(
  slice: Slice,
  mutation: Mutation,
  { own, references, states }: Names,
  ready: ReadyMutation,
): Prepared | undefined {
  const ownState = own === undefined ? undefined : states.get(own);
  if (mutation.op === "create") {
    if (ownState?.kind === "mapped") {
      return rejected("temp-id-in-use", "The temp ID already names a record.");
    }
  } else if (ownState?.kind === "mapped" && ownState.entity !== mutation.entity) {
    return rejected("not-found", "There is no such record.");
  } else if (own !== undefined && ownState) {
    const fault = unresolved(slice, mutation, own, ownState, ready);
    if (fault) return fault;
  }
  for (const tempId of references) {
    const state = states.get(tempId);
    const fault = state && unresolved(slice, mutation, tempId, state, ready);
    if (fault) return fault;
  }
  return undefined;
}

function unresolved(
  { claim }: Slice,
  { seq }: Mutation,
  tempId: string,
  state: TempIdState,
  ready: ReadyMutation,
): Prepared | undefined {
  switch (state.kind) {
    case "mapped":
      return undefined;
    case "unknown":
      return rejected("unknown-reference", `Nobody has created ${toTempId(tempId)}.`);
    case "failed":
      return rejected("dependency-failed", `The create of ${toTempId(tempId)} was not done.`);
    case "pending":
      // In the client's own log a create that comes later can't be waited for: order would never let it come.
      if (state.clientId === claim.clientId && state.seq >= seq) {
        return rejected("unknown-reference", `${toTempId(tempId)} is created only after it is referred to.`);
      }
      return { kind: "waiting", blockedBy: state.mutationId, ...keysOf(ready) };
  }
}

function rejected(code: ErrorCode, detail: string): Prepared {
  return { kind: "rejected", problem: problem(code, detail) };
}

export function problem(code: ErrorCode, detail: string): StoredProblem {
  return { code, detail };
}
