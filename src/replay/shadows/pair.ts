import type { StoredProblem } from "../../platform/schema.ts";
import { UpstreamError } from "../../upstream/connector.ts";
import { MappingError } from "../../upstream/mapping/mapping.ts";
import { problem } from "../prepare.ts";
import { assertMayStart, ensureLease, LaneLost, whileLeased, type Slice } from "../slice.ts";
import { matchValue } from "./match-value.ts";
import { partnersMax, type Partner, type Partners } from "./partners.ts";
import type { ReadyChange } from "./prepare-followed.ts";

/** Which of the records that the shadow held before is the one that would be created. */
export type Pairing =
  /** None of them, as far as is known: it is to be created. */
  | { kind: "none" }
  /** One: the shadow has the record by now, under that one's ID. */
  | { kind: "paired" }
  /** A person has to say. */
  | { kind: "unclear"; problem: StoredProblem }
  /** The shadow could not be asked. */
  | { kind: "failed"; error: UpstreamError };

interface Looked extends Partner {
  version: string | undefined;
}

/**
 * Pairs a record that is about to be created with the only one of those listed before that has the same value at
 * `match`. The shadow is asked whether they still have it. What is paired is written down before anything is sent.
 *
 * @throws {LaneLost}
 */
export async function pairWithListed(
  slice: Slice,
  change: ReadyChange,
  partners: Partners,
): Promise<Pairing> {
  const { entity } = change.key;
  const pointer = change.ready.config.match;
  const value = pointer === undefined ? undefined : await valueSent(slice, change, pointer);
  if (pointer === undefined || value === undefined) return { kind: "none" };
  const listed = await whileLeased(slice, () => partners.find({ entity, pointer, value }));
  if (!listed) return unclear("The shadow's records are not listed by this field, or under a known secret.");
  if (listed.length > partnersMax) return unclear(severalHaveIt);
  try {
    const looked = await stillWith(slice, change, listed, { pointer, value });
    return await pairWithOnly(slice, change, looked, partners);
  } catch (error) {
    if (error instanceof UpstreamError) return { kind: "failed", error };
    throw error;
  }
}

const severalHaveIt = "Several records that the shadow held before have this value.";

function unclear(detail: string): Pairing {
  return { kind: "unclear", problem: problem("match-unclear", detail) };
}

/** What the create would send there. Where that can't be mapped, the create itself will say so. */
async function valueSent(
  { upstream }: Slice,
  { key, ready }: ReadyChange,
  pointer: string,
): Promise<string | undefined> {
  try {
    return matchValue(await upstream.toBody(key.entity, ready.data), pointer);
  } catch (error) {
    if (error instanceof MappingError) return undefined;
    throw error;
  }
}

/** Those that are still there, and still have the value: the list may be old. */
async function stillWith(
  slice: Slice,
  { key, ready }: ReadyChange,
  listed: Partner[],
  { pointer, value }: { pointer: string; value: string },
): Promise<Looked[]> {
  const { userId, requestId } = ready.author;
  const looked: Looked[] = [];
  for (const partner of listed) {
    await ensureLease(slice);
    const found = await slice.upstream.readHeld({
      entity: key.entity,
      id: partner.ownId,
      actor: userId || undefined,
      requestId: requestId || undefined,
      signal: slice.signal,
      mayStart: () => assertMayStart(slice),
    });
    const has = found?.body === undefined ? undefined : matchValue(found.body, pointer);
    if (found && has === value) looked.push({ ...partner, version: found.version });
  }
  return looked;
}

async function pairWithOnly(
  slice: Slice,
  { key }: ReadyChange,
  [only, ...others]: Looked[],
  partners: Partners,
): Promise<Pairing> {
  if (!only) return { kind: "none" };
  if (others.length > 0) return unclear(severalHaveIt);
  const taken = await whileLeased(slice, () => partners.take(slice.claim, key, only));
  if (taken === "lost") throw new LaneLost(slice.claim);
  return taken === "paired"
    ? { kind: "paired" }
    : unclear("Another record is paired with the one that has this value in the shadow.");
}
