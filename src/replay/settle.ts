import type { RecordWrite } from "../change-feed/write.ts";
import { TempIdTaken, type Mapping } from "../id-map/id-map.ts";
import { canonicalJson } from "../platform/canonical-json.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { StoredProblem } from "../platform/schema.ts";
import { isAnothers, type StoredRecord } from "../records/record.ts";
import { isSameRecord } from "../records/same-record.ts";
import { scopesOf } from "../records/scopes.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import { park, retryLater, waitForRecord } from "./keep-back.ts";
import { closing, pass, placeOf, toOutcome, tryPass, type Step } from "./leave.ts";
import { learn } from "./names.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import { problem, type ReadyMutation } from "./prepare.ts";
import { isOwnIdTaken } from "./shadows/records.ts";
import { ensureLease, whileLeased, type Slice } from "./slice.ts";
import { unmappable, type Verdict } from "./verdict.ts";

/** Writes down what a mutation came to. */
export async function settle(
  slice: Slice,
  ready: ReadyMutation,
  verdict: Verdict,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  switch (verdict.kind) {
    case "rejected":
      return await pass(
        slice,
        { ...toOutcome(place, "rejected", verdict.problem), delivery: closing(slice, place) },
        place,
        isLast,
      );
    case "applied":
    case "conflict":
      return await settleChanged(slice, ready, verdict, delivery, isLast);
    case "busy":
      return await waitForRecord(slice, place, verdict.blockedBy, delivery);
    case "parked":
      return await park(slice, place, verdict, delivery, isLast);
    case "retry":
      return await retryLater(slice, place, verdict, delivery);
  }
}

type Changed = Extract<Verdict, { kind: "applied" | "conflict" }>;

async function settleChanged(
  slice: Slice,
  ready: ReadyMutation,
  verdict: Changed,
  delivery: OpenDelivery | undefined,
  isLast: boolean,
): Promise<Step> {
  const place = placeOf(ready);
  const commit = {
    outcome: {
      mutationId: place.mutationId,
      status: verdict.kind,
      isNew: true,
      recordId: verdict.serverId,
      version: verdict.version,
      ...(verdict.kind === "conflict" && {
        problem: conflictOf(ready),
      }),
    },
    delivery: closing(slice, place),
    mapping: mappingOf(slice, ready, verdict),
  };
  try {
    let record = verdict.record;
    for (;;) {
      const step = await tryPass(slice, { ...commit, record }, place, isLast);
      if (step && commit.mapping) learn(slice, commit.mapping);
      if (step) return step;
      record = await readAgain(slice, ready, record);
    }
  } catch (error) {
    const { history } = verdict;
    // The effect took place; what failed is to write it down. What a person says stays said until it is written.
    if (error instanceof UpstreamError && !slice.command) {
      const failed = { error, history, afterMs: error.retryAfterMs };
      return await retryLater(slice, place, failed, delivery);
    }
    const fault = faultOf(error);
    if (!fault) throw error;
    return await park(slice, place, { problem: fault, history, error: undefined }, delivery, isLast);
  }
}

function conflictOf({ config, mutation }: ReadyMutation): StoredProblem {
  return config.conflict === "server-wins" && mutation.op !== "create"
    ? problem("server-wins", "The record has changed, and stays as it is.")
    : problem("upstream-conflict", "The record has changed.");
}

/** What only a person can settle, of the reasons why an effect could not be written down. */
export function faultOf(error: unknown): StoredProblem | undefined {
  if (error instanceof MappingError) return unmappable(error);
  if (error instanceof RecordTaken) {
    return problem("upstream-unexpected", "The upstream named a record that another create has.");
  }
  if (error instanceof TempIdTaken) {
    return problem("temp-id-in-use", "Two creates of this temp ID took effect at the same moment.");
  }
  if (isOwnIdTaken(error)) {
    return problem("upstream-unexpected", "The shadow has another of the primary's records under this ID.");
  }
  // 22: data exceptions of Postgres, such as a NUL in what the upstream calls the record.
  if (error instanceof Error && "code" in error && String(error.code).startsWith("22")) {
    return problem("upstream-unexpected", "The upstream's answer can't be stored.");
  }
  return undefined;
}

function mappingOf({ claim }: Slice, ready: ReadyMutation, verdict: Changed): Mapping | undefined {
  const { mutation, tempId } = ready;
  if (verdict.kind !== "applied" || tempId === undefined || verdict.serverId === undefined) return undefined;
  return {
    tempId,
    entity: mutation.entity,
    serverId: verdict.serverId,
    clientId: claim.clientId,
    mutationId: mutation.id,
  };
}

/** A published server ID never means another record. */
class RecordTaken extends Error {}

/** Somebody else wrote the record since our call began: only what the upstream says now may be written. */
async function readAgain(
  slice: Slice,
  { mutation, config, author, tempId }: ReadyMutation,
  record: RecordWrite | undefined,
): Promise<RecordWrite | undefined> {
  if (!record) throw new Error("a commit without a record can't have moved");
  const { entity, serverId } = record;
  const stored = await whileLeased(slice, () => slice.store.readRecord({ entity, serverId }));
  if (tempId !== undefined && isAnothers(stored, tempId)) throw new RecordTaken("the record is another's");
  await ensureLease(slice);
  const answer = await slice.upstream.read({
    entity,
    id: serverId,
    signal: slice.signal,
    actor: author.userId,
    requestId: author.requestId,
  });
  if (answer && answer.data === undefined) throw new Error(`a record of ${mutation.entity} can't be read`);
  const data = answer?.data ?? null;
  const scopes = data === null ? (stored?.scopes ?? record.scopes) : scopesOf(config.scopes, data);
  const isKnown = stored !== undefined && standsAs(stored, { data, tempId, scopes });
  // What others have changed besides, before or after us, interrupts the client's own edits.
  const isOnlyEcho =
    isKnown &&
    record.mutation &&
    stored.version === (record.begunVersion ?? 0) + 1 &&
    isAsWeLeftIt(record, { data, version: answer?.version }, config);
  return {
    ...record,
    begunAt: stored?.feedPosition ?? 0,
    data,
    upstreamVersion: answer?.version ?? null,
    scopes,
    ...(stored && !isOnlyEcho && { changedBase: null }),
    isKnown,
    before: stored?.data ?? null,
    ...(record.mutation && { mutation: { ...record.mutation, isCrossed: true } }),
  };
}

/** Whether nobody has changed the record since our call did. */
function isAsWeLeftIt(
  record: RecordWrite,
  { data, version }: { data: string | null; version: string | undefined },
  config: EntityConfig,
): boolean {
  if (record.upstreamVersion !== null && version !== undefined) return record.upstreamVersion === version;
  if (data === null || record.data === null) return data === record.data;
  return isSameRecord(data, record.data, config);
}

/** Whether readers were told all that there is to tell: somebody saw our effect at the upstream before we wrote it down. */
function standsAs(
  stored: StoredRecord,
  { data, tempId, scopes }: { data: string | null; tempId: string | undefined; scopes: string[] },
): boolean {
  // What another client wrote is another change, even if it holds ours.
  if (stored.changedBy !== null) return false;
  if (tempId !== undefined && stored.tempId !== tempId) return false;
  // The templates may have been others when it was written.
  if (JSON.stringify(stored.scopes) !== JSON.stringify(scopes)) return false;
  if (data === null || stored.data === null) return data === stored.data;
  return canonicalJson(data) === canonicalJson(stored.data);
}
