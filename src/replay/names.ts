import type { Mapping, TempIdState } from "../id-map/id-map.ts";
import { tempUuid } from "../platform/uuid.ts";
import { isShadow, whileLeased, type Slice } from "./slice.ts";

const unknown: TempIdState = { kind: "unmapped", creates: [] };

/**
 * What is known of temp IDs (bare UUIDs).
 *
 * The first look of a slice takes along the names of all records that the slice is about, so that most mutations need
 * none of their own. What it finds is used as long as it can't have changed: a mapping never does, and a create that was
 * the first live one of its temp ID stays that.
 *
 * @param creates the mutation that asks, if it creates the record of one of them.
 */
export async function resolve(
  slice: Slice,
  tempIds: string[],
  creates?: string,
): Promise<Map<string, TempIdState>> {
  const remembered = (tempId: string): TempIdState | undefined => {
    const foreseen = slice.foreseen?.get(tempId);
    const isOwn = creates !== undefined && foreseen !== undefined && firstLive(foreseen) === creates;
    return slice.mapped.get(tempId) ?? (isOwn ? foreseen : undefined);
  };
  const open = tempIds.filter((tempId) => !remembered(tempId));
  const found = open.length > 0 ? await look(slice, open) : undefined;
  return new Map(tempIds.map((tempId) => [tempId, found?.get(tempId) ?? remembered(tempId) ?? unknown]));
}

/** Remembers what a commit of this slice has mapped. */
export function learn(slice: Slice, { tempId, entity, serverId, mutationId }: Mapping): void {
  slice.mapped.set(tempId, { kind: "mapped", entity, serverId, mutationId });
}

/** The create that has a temp ID which is not mapped: the first accepted one that did not fail. */
export function firstLive(state: TempIdState): string | undefined {
  return state.kind === "mapped"
    ? undefined
    : state.creates.find(({ status }) => status === null)?.mutationId;
}

async function look(slice: Slice, tempIds: string[]): Promise<Map<string, TempIdState>> {
  const ahead = slice.foreseen === undefined ? ownNames(slice) : [];
  const asked = [...new Set([...tempIds, ...ahead])];
  const states = await whileLeased(slice, () => slice.store.resolve(asked));
  slice.foreseen ??= new Map(ahead.map((tempId) => [tempId, states.get(tempId) ?? unknown]));
  // There are other slices' names among the states.
  for (const tempId of asked) {
    const state = states.get(tempId);
    if (state?.kind === "mapped") slice.mapped.set(tempId, state);
  }
  return states;
}

function ownNames(slice: Slice): string[] {
  if (isShadow(slice)) return [];
  return slice.entries.flatMap((entry) =>
    "mutation" in entry ? (tempUuid(entry.mutation.recordId) ?? []) : [],
  );
}
