import type { UpstreamConfig } from "../../platform/config/schema.ts";
import type { OpenCommand } from "../command.ts";
import { readIfPossible, refuse, reject } from "../decide.ts";
import { closing, pass, type Place, type Step } from "../leave.ts";
import type { OpenDelivery } from "../open-delivery.ts";
import { whileLeased, type Slice } from "../slice.ts";
import { recordKey } from "../../records/record.ts";
import type { FollowedEntry } from "./log.ts";
import { planFollowed, type Plan } from "./prepare-followed.ts";
import type { ShadowRecordWrite } from "./records.ts";

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
  if (plan.kind === "nothing") return undefined;
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
  const outcome = { mutationId: mutation.id, status: "applied" as const, isNew: true };
  return await pass(slice, { outcome, delivery: closing(slice, place), follow }, place, isLast);
}

/** What the shadow calls the record then; or why that can't be. */
async function toFollow(
  slice: Slice,
  { entry: { mutation, author, change }, key, op, own, config }: Plan,
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
  const holder = await whileLeased(slice, () =>
    slice.store.readServerId({ entity: key.entity, ownId: recordId }),
  );
  if (holder !== undefined && holder !== key.serverId) return "the shadow has another record under this ID";
  const found = await readIfPossible(slice, { mutation, author }, recordId);
  if (found === "gone") return "the shadow has no such record";
  const version = found?.version ?? null;
  const mayBeListed = config.match !== undefined;
  const isThere = { deleted: false, isIncomplete: isSeed, mayBeListed };
  return { ...key, upstreamId, ownId: recordId, version, reached, ...isThere };
}
