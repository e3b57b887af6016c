import type { RecordWrite } from "../change-feed/write.ts";
import type { Mutation } from "../inbox/mutation.ts";
import { mergePatch } from "../platform/json-text.ts";
import { isAnothers, type StoredRecord } from "../records/record.ts";
import { scopesOf } from "../records/scopes.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import type { UpstreamAnswer } from "../upstream/upstream.ts";
import type { OpenCommand } from "./command.ts";
import type { ClaimedEntry } from "./entries.ts";
import { ownBase } from "./judge.ts";
import { closing, pass, toOutcome, type Place, type Step } from "./leave.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import { prepare, problem, type ReadyMutation } from "./prepare.ts";
import { appliedMutation } from "./record-after.ts";
import { canResolve } from "./resolvers.ts";
import { settle } from "./settle.ts";
import { assertMayStart, commitSlice, databaseNow, ensureLease, whileLeased, type Slice } from "./slice.ts";
import { upcast } from "./upcast.ts";
import type { Verdict } from "./verdict.ts";

type AcceptedEntry = Pick<Extract<ClaimedEntry, { mutation: Mutation }>, "mutation" | "author">;

/**
 * Carries out what a person has decided about a mutation: that the upstream has it, or that it is given up.
 *
 * Undefined when it can't be as the person says; the command says why, and the mutation goes on as it stands.
 */
export async function decide(
  slice: Slice,
  { mutation, author }: AcceptedEntry,
  command: OpenCommand,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step | undefined> {
  if (command.command === "reject") return await reject(slice, mutation, command, delivery, isLast);
  const upcasted = await upcast(slice, mutation);
  const isReadable = "mutation" in upcasted;
  // What data of another schema means is not known: the record as the upstream has it says all.
  const meant = isReadable ? upcasted.mutation : { ...mutation, data: undefined, base: undefined };
  const prepared = await prepare(slice, meant, author, true);
  if (prepared.kind !== "ready") return await refuse(slice, command, "the entity is not configured");
  const verdict = await toApplied(slice, prepared.ready, { command, delivery, isReadable });
  if (typeof verdict === "string") return await refuse(slice, command, verdict);
  return await settle(slice, prepared.ready, verdict, delivery, isLast);
}

/** Gives a mutation up: nothing is sent, and nothing of what was sent is taken back. */
export async function reject(
  slice: Slice,
  { id, seq, op }: Mutation,
  { reason }: OpenCommand,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const { recordKey = "", refersTo = [] } = delivery ?? {};
  const place: Place = { mutationId: id, seq, op, recordKey, refersTo };
  const fault = problem("rejected-by-operator", reason ?? "An operator has given the change up.");
  const outcome = toOutcome(place, "rejected", fault);
  return await pass(slice, { ...outcome, delivery: closing(slice, place) }, place, isLast);
}

/** Says why a command is not carried out. */
export async function refuse(slice: Slice, { commandId }: OpenCommand, why: string): Promise<undefined> {
  const { position, failures } = slice;
  await commitSlice(slice, { position, failures, commands: [{ commandId, result: `refused: ${why}` }] });
}

interface Decision {
  command: OpenCommand;
  delivery: OpenDelivery | undefined;
  /** What the mutation says can be understood. */
  isReadable: boolean;
}

/** What the upstream's own answer would have come to; or why that can't be. */
async function toApplied(
  slice: Slice,
  ready: ReadyMutation,
  { command, delivery, isReadable }: Decision,
): Promise<Extract<Verdict, { kind: "applied" }> | string> {
  const { mutation, tempId } = ready;
  const serverId = tempId === undefined ? ready.serverId : (command.recordId ?? undefined);
  if (serverId === undefined) return "it is not known which record this is";
  const stored = await whileLeased(slice, () =>
    slice.store.readRecord({ entity: mutation.entity, serverId }),
  );
  if (tempId !== undefined && isAnothers(stored, tempId)) return "the record is another create's";
  const found = mutation.op === "delete" ? undefined : await readIfPossible(slice, ready, serverId);
  if (found === "gone" && mutation.op === "create") return "the upstream has no such record";
  const isTold = mutation.op === "delete" || found === "gone" || found?.data !== undefined;
  if (!isReadable && !isTold) return "the record can't be read, and the data is of another schema";
  const now = databaseNow(slice);
  return {
    kind: "applied",
    serverId,
    version: stored?.version,
    record: toRecord(slice, ready, { serverId, stored, found }),
    history: {
      possiblySent: true,
      isAssumed: false,
      firstSentAt: delivery?.firstSentAt ?? now,
      lastSentAt: now,
    },
  };
}

type Found = UpstreamAnswer | "gone" | undefined;

/** Undefined when the upstream can't be asked at the moment, or its record can't be read. */
export async function readIfPossible(
  slice: Slice,
  { mutation: { entity }, author }: AcceptedEntry,
  id: string,
): Promise<Found> {
  await ensureLease(slice);
  const { userId: actor, requestId } = author;
  const call = { entity, id, actor, requestId, signal: slice.signal, mayStart: () => assertMayStart(slice) };
  try {
    return (await slice.upstream.read(call)) ?? "gone";
  } catch (error) {
    if (error instanceof UpstreamError || error instanceof MappingError) return undefined;
    throw error;
  }
}

/** Undefined when nothing is known of the record, and so there is nothing to tell of it. */
function toRecord(
  { claim: { clientId } }: Slice,
  ready: ReadyMutation,
  { serverId, stored, found }: { serverId: string; stored: StoredRecord | undefined; found: Found },
): RecordWrite | undefined {
  const { mutation, config, tempId, data: sent } = ready;
  const { op, entity } = mutation;
  if (!stored && !found && op !== "create") return undefined;
  const isGone = op === "delete" || found === "gone";
  const answered = found === "gone" ? undefined : found?.data;
  const before = op === "update" ? (stored?.data ?? undefined) : undefined;
  const data = isGone ? null : (answered ?? mergePatch(before, sent));
  return {
    entity,
    serverId,
    begunAt: stored?.feedPosition ?? 0,
    data,
    scopes: data === null ? (stored?.scopes ?? []) : scopesOf(config.scopes, data),
    upstreamVersion: found === "gone" ? null : (found?.version ?? null),
    tempId: tempId ?? null,
    createdBy: op === "create" ? clientId : null,
    changedBy: clientId,
    changedBase: ownBase(clientId, stored),
    before: stored?.data ?? null,
    // When it took effect is not known: only the record as it is now says what has become of it.
    mutation: { ...appliedMutation(ready), isCrossed: true },
  };
}

/**
 * What is known of a mutation that an operator has sent again: as before, so that what may have been sent is resolved
 * first. Where that can't be found out, the operator has taken the responsibility, and it starts afresh.
 */
export function released(
  slice: Slice,
  { entity, op }: Mutation,
  delivery: OpenDelivery | undefined,
): OpenDelivery | undefined {
  if (delivery?.state !== "parked") return delivery;
  const config = slice.upstream.entity(entity);
  const nowMs = databaseNow(slice).getTime();
  const firstSentAt = delivery.firstSentAt?.getTime() ?? nowMs;
  const again = { ...delivery, state: "retrying" as const };
  if (!delivery.possiblySent || !config || canResolve(config, op, nowMs - firstSentAt)) return again;
  const fresh = {
    possiblySent: false,
    isAssumed: false,
    wasAllowed: false,
    firstSentAt: null,
    lastSentAt: null,
  };
  return { ...again, ...fresh, isReset: true };
}
