import type { Transaction } from "kysely";

import { RawJson } from "../http/raw-json.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import { TidegateError, type ErrorCode } from "../platform/errors.ts";
import type { Database, StoredProblem } from "../platform/schema.ts";
import { toProblem, type Problem } from "../http/problem.ts";
import { readRecords, recordKey, type StoredRecord } from "../records/record.ts";
import { canSee, type Reader } from "../records/scopes.ts";
import type { KnownMutation } from "./results.ts";

/** A mutation's outcome as clients get it, in receipts, in the feed and in lists alike. */
export interface MutationResult {
  seq: number;
  id: string;
  status: "applied" | "conflict" | "rejected" | "pending" | "parked";
  recordId?: string;
  tempId?: string;
  version?: string;
  blockedBy?: string | null;
  problem?: Problem;
  /** The record as it stands now, as far as the reader may see it. */
  current?: { version: string; deleted?: true; data?: RawJson };
  /** The recorded result of the mutation whose id was used again. */
  original?: MutationResult;
}

/** The results of mutations as one reader may see them, in the order given. */
export async function toResults(
  trx: Transaction<Database>,
  reader: Reader & { tenantId: string },
  mutations: KnownMutation[],
  codec: PayloadCodec,
): Promise<MutationResult[]> {
  const conflicts = mutations.filter(({ status, recordId }) => status === "conflict" && recordId !== null);
  const keys = conflicts.map(({ entity, recordId }) => ({ entity, serverId: recordId ?? "" }));
  const records = await readRecords(trx, reader.tenantId, keys, codec);
  return mutations.map((mutation) => toResult(mutation, reader, records));
}

/** One result; `records` holds the records of conflicts. */
export function toResult(
  mutation: KnownMutation,
  reader: Reader,
  records: ReadonlyMap<string, StoredRecord> = new Map(),
): MutationResult {
  const { seq, id, status, recordId, tempId, version, problem } = mutation;
  const result: MutationResult = { seq, id, status };
  if (recordId !== null) result.recordId = recordId;
  if (tempId !== null) result.tempId = tempId;
  if (version !== null) result.version = version;
  if (status === "pending") result.blockedBy = mutation.blockedBy;
  if (problem !== null) result.problem = problemOf(problem);
  if (status === "conflict") {
    const record = records.get(recordKey({ entity: mutation.entity, serverId: recordId ?? "" }));
    if (record && canSee(reader, record.scopes)) result.current = currentOf(record);
  }
  return result;
}

function currentOf(record: StoredRecord): NonNullable<MutationResult["current"]> {
  const version = String(record.version);
  return record.data === null ? { version, deleted: true } : { version, data: new RawJson(record.data) };
}

/** The problem document of a recorded problem. */
export function problemOf({ code, detail }: StoredProblem): Problem {
  return toProblem(new TidegateError(code as ErrorCode, detail));
}
