import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { sendsRecord } from "../upstream/sends-record.ts";
import type { Judgement } from "./judge.ts";
import type { ReadyMutation } from "./prepare.ts";
import type { RecordClaimed } from "./record-claim.ts";
import { isShadow, LaneLost, whileLeased, type Slice } from "./slice.ts";

/** How often a claim is asked for that is given back at the same moment. */
const triesMax = 5;

/**
 * Judges a change; where the upstream can't tell versions, under a claim of the record, so that between the look at it and
 * the write nobody else changes it. The claim ends with the commit of what the mutation comes to.
 *
 * The rules are asked before: a record that the author may not see is not claimed, and so not seen to be busy.
 *
 * @throws {LaneLost} when this is no longer the database that is served.
 */
export async function judgeClaimed(
  slice: Slice,
  ready: ReadyMutation,
  judge: () => Promise<Judgement>,
): Promise<Judgement | { kind: "busy"; blockedBy: string }> {
  const judgement = await judge();
  if (judgement.kind !== "allowed" || isShadow(slice) || !areClaimed(ready.config)) return judgement;
  const claimed = await claimRecord(slice, ready);
  if (claimed.kind === "busy") return { kind: "busy", blockedBy: claimed.mutationId };
  const hasMoved = claimed.feedPosition !== (judgement.target.stored?.feedPosition ?? 0);
  return hasMoved ? await judge() : judgement;
}

/** Whether every change of its records is refused by the upstream where the record is not as it was expected to be. */
export function isVersioned(config: EntityConfig): boolean {
  const changes = [config.update, config.delete].filter(({ enabled }) => enabled);
  return changes.every((operation) => operation.class === "conditional");
}

/**
 * Whether whoever changes a record of this entity has to have it alone, since some change of it is made of what was read
 * before: compared with it, or sent with it as a whole. By `client-wins` nothing is compared.
 */
export function areClaimed(config: EntityConfig): boolean {
  const { update, conflict } = config;
  if (conflict !== "client-wins") return !isVersioned(config);
  return update.enabled && sendsRecord(update) && update.class !== "conditional";
}

/** Claims the record of a mutation until what the mutation comes to is written down. @throws {LaneLost} as above. */
export async function claimRecord(
  slice: Slice,
  { mutation, serverId = "" }: ReadyMutation,
): Promise<Exclude<RecordClaimed, { kind: "unknown" }>> {
  const { laneId, epoch } = slice.claim;
  const record = { entity: mutation.entity, serverId, laneId, epoch };
  for (let tries = 1; tries <= triesMax; tries++) {
    const startedAt = performance.now();
    const claimed = await whileLeased(slice, () =>
      slice.store.claimRecord({ ...record, mutationId: mutation.id }),
    );
    if (claimed.kind === "unknown") continue;
    if (claimed.kind === "ours") slice.recordClaim = { ...record, leaseUntil: startedAt + slice.leaseMs };
    return claimed;
  }
  throw new LaneLost(slice.claim);
}
