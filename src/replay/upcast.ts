import type { Mutation } from "../inbox/mutation.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { tempUuid, toTempId } from "../platform/uuid.ts";
import { recordKey } from "../records/record.ts";
import { UpcastError } from "../upstream/upcast.ts";
import type { Author } from "./blocks.ts";
import { failingMapping } from "./failing-mapping.ts";
import { prepare, problem, type Prepared } from "./prepare.ts";
import { referencesIn } from "./references.ts";
import type { Slice } from "./slice.ts";

/** A mutation of the entity's present schema; or else why it can't be brought there, and by which upcaster. */
export type Upcasted = { mutation: Mutation } | { problem: StoredProblem; place: string | undefined };

export async function upcast({ upstream }: Slice, mutation: Mutation): Promise<Upcasted> {
  try {
    return { mutation: await upstream.upcast(mutation.entity, mutation) };
  } catch (error) {
    if (!(error instanceof UpcastError)) throw error;
    return { problem: problem("schema-unsupported", error.message), place: error.place };
  }
}

/**
 * Brings a mutation to the entity's present schema, and prepares it. One that can't be brought there is a misfit: what it
 * means is not known, so nothing is rejected because of what it says; behind a parked one that it depends on it is held.
 *
 * @param wasSent it was found ready before, and may have taken effect.
 */
export async function prepareUpcast(
  slice: Slice,
  sent: Mutation,
  author: Author,
  wasSent: boolean,
): Promise<Prepared> {
  const upcasted = await upcast(slice, sent);
  if ("mutation" in upcasted) return await prepare(slice, upcasted.mutation, author, wasSent);
  const asSent = wasSent ? undefined : await prepare(slice, sent, author, false);
  const keys = keysOf(slice, sent);
  if (asSent?.kind === "held") return { ...asSent, ...keys };
  const { problem: fault, place } = upcasted;
  const of = { userId: author.userId, recordKey: keys.recordKey };
  const error = place === undefined ? undefined : failingMapping(slice, { place, message: fault.detail }, of);
  return { kind: "misfit", problem: fault, error, ...keys };
}

/** Where data of another schema holds its references is not known: a temp ID anywhere is one. */
function keysOf(
  { upstream }: Slice,
  { entity, recordId, data }: Mutation,
): { recordKey: string; refersTo: string[] } {
  const own = tempUuid(recordId);
  const { references: _, ...anywhere } = upstream.entity(entity) ?? ({} as EntityConfig);
  return {
    recordKey: own === undefined ? recordKey({ entity, serverId: recordId }) : toTempId(own),
    refersTo: referencesIn(data, anywhere)
      .filter((uuid) => uuid !== own)
      .map(toTempId),
  };
}
