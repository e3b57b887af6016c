import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { OpenCommand } from "../command.ts";
import { readIfPossible, refuse, reject } from "../decide.ts";
import { closing, pass, type Place, type Step } from "../leave.ts";
import type { OpenDelivery } from "../open-delivery.ts";
import { whileLeased, type Slice } from "../slice.ts";
import { recordKey, type RecordKey } from "../../records/record.ts";
import type { FollowedEntry } from "./log.ts";
import { planFollowed, type Plan } from "./prepare-followed.ts";
import { isOwnIdTaken, type ShadowRecordWrite } from "./records.ts";
import { absentIn, hasOwn } from "./unclear-create.ts";

/** What a person says about a change, and what is known of it. */
interface Decision {
  command: OpenCommand;
  known: OpenDelivery | undefined;
  primary: UpstreamConfig;
}

/**
 * Carries out what a person has decided about a change in a shadow: that the shadow has it, or that it is left out there.
 * A record whose create is left out is created as a whole by its next change; one whose delete is left out stays, under
 * the ID that it has there.
 *
 * Undefined when it can't be as the person says, the command then says why; or when there is nothing to do in the shadow.
 */
export async function decideFollowed(
  slice: Slice,
  entry: FollowedEntry,
  { command, known, primary }: Decision,
  isLast: boolean,
): Promise<Step | undefined> {
  const { mutation } = entry;
  if (command.command === "reject") return await reject(slice, mutation, command, known, isLast);
  const plan = await planFollowed(slice, entry, primary);
  if (plan.kind === "nothing") return await takeOver(slice, entry, command, isLast);
  if (plan.kind !== "plan") return await refuse(slice, command, "an earlier change of the record is open");
  const follow = await toFollow(slice, plan, command);
  if (typeof follow === "string") return await refuse(slice, command, follow);
  const place: Place = {
    mutationId: mutation.id,
    seq: mutation.seq,
    op: plan.op,
    recordKey: recordKey(plan.key),
    refersTo: [],
  };
  return await write(slice, follow, { command, place }, isLast);
}

/**
 * A record that the shadow is not meant to have by now, and that a person has found there: it is taken over under its ID,
 * so that the log goes on with it, and removes it where it was deleted.
 */
async function takeOver(
  slice: Slice,
  entry: FollowedEntry,
  command: OpenCommand,
  isLast: boolean,
): Promise<Step | undefined> {
  const { mutation } = entry;
  const key = { entity: mutation.entity, serverId: mutation.recordId };
  if (command.recordId === null || !absentIn(slice, entry) || (await hasOwn(slice, key))) return undefined;
  const own = await ownNamed(slice, entry, key, command.recordId);
  if (typeof own === "string") return await refuse(slice, command, own);
  const follow = { ...own, reached: 0, isIncomplete: false };
  const { id: mutationId, seq } = mutation;
  const place: Place = { mutationId, seq, op: "create", recordKey: recordKey(key), refersTo: [] };
  return await write(slice, follow, { command, place }, isLast);
}

/** Undefined when another record has got the ID in the meantime. */
async function write(
  slice: Slice,
  follow: ShadowRecordWrite,
  { command, place }: { command: OpenCommand; place: Place },
  isLast: boolean,
): Promise<Step | undefined> {
  const outcome = { mutationId: place.mutationId, status: "applied" as const, isNew: true };
  try {
    return await pass(slice, { outcome, delivery: closing(slice, place), follow }, place, isLast);
  } catch (error) {
    if (!isOwnIdTaken(error)) throw error;
    return await refuse(slice, command, hasAnother);
  }
}

const hasAnother = "the shadow has another record under this ID";

/** What the shadow calls the record then; or why that can't be. */
async function toFollow(
  slice: Slice,
  { entry: { mutation, author, change }, key, op, own }: Plan,
  { recordId }: OpenCommand,
): Promise<ShadowRecordWrite | string> {
  const { upstreamId } = slice.claim;
  const isSeed = mutation.seq < 0;
  // A seed is the record as it is when it is read: what the person has found may be older. The log says all again.
  const reached = isSeed ? (own?.reached ?? 0) : change.reached;
  if (own) {
    // Its version is found out by the next change.
    const isGone = { deleted: op === "delete", isIncomplete: false, mayBeListed: false };
    return { ...own, upstreamId, version: null, reached, ...isGone };
  }
  if (recordId === null) return "it is not known which record this is";
  const named = await ownNamed(slice, { mutation, author }, key, recordId);
  return typeof named === "string" ? named : { ...named, reached, isIncomplete: isSeed };
}

/** The record under the ID that a person has named; or why it can't be that. */
async function ownNamed(
  slice: Slice,
  entry: Pick<FollowedEntry, "mutation" | "author">,
  key: RecordKey,
  ownId: string,
): Promise<Omit<ShadowRecordWrite, "reached" | "isIncomplete"> | string> {
  const holder = await whileLeased(slice, () => slice.store.readServerId({ entity: key.entity, ownId }));
  if (holder !== undefined && holder !== key.serverId) return hasAnother;
  const found = await readIfPossible(slice, entry, ownId);
  if (found === "gone") return "the shadow has no such record";
  const { upstreamId } = slice.claim;
  const mayBeListed = slice.upstream.entity(key.entity)?.match !== undefined;
  return { ...key, upstreamId, ownId, version: found?.version ?? null, deleted: false, mayBeListed };
}
