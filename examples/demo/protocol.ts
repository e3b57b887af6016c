/* The part of the wire protocol that a phone needs; `openapi.yaml` has all of it. */

/** One change that the user made. */
export interface Edit {
  entity: string;
  op: "create" | "update" | "delete";
  /** A temp ID or a server ID, whichever the app has. */
  recordId: string;
  /** The record, or for an update a JSON Merge Patch. */
  data?: Record<string, unknown>;
}

export interface Batch {
  clientId: string;
  previousSeq: number;
  lostThrough?: number;
  sentAt: string;
  cursor?: string;
  mutations: (Edit & { seq: number; id: string })[];
}

export interface Result {
  seq: number;
  id: string;
  status: "applied" | "conflict" | "rejected" | "pending" | "parked";
  recordId?: string;
  tempId?: string;
  version?: string;
  problem?: Problem;
  /** After a conflict: the record as it stands. */
  current?: { version: string; deleted?: true; data?: Record<string, unknown> };
}

export interface Receipt {
  ackedSeq: number;
  results: Result[];
  idMappings: { entity: string; tempId: string; serverId: string }[];
  changes?: Change[];
  cursor?: string;
  cursorProblem?: Problem;
}

export interface ShownRecord {
  entity: string;
  id: string;
  version: string;
  data: Record<string, unknown>;
  tempId?: string;
}

export type RecordChange =
  | ({ type: "upsert" } & ShownRecord)
  | { type: "delete" | "revoke"; entity: string; id: string };

export type Change = RecordChange | { type: "outcome"; result: Result };

export interface Page {
  changes: Change[];
  cursor: string;
  more: boolean;
}

export interface SnapshotPage {
  records: ShownRecord[];
  more: boolean;
  /** While there is more. */
  page?: string;
  /** At the end. */
  cursor?: string;
}

export interface ResultPage {
  results: Result[];
  more: boolean;
}

/** RFC 9457; `type` is `urn:tidegate:problem:<code>`. */
export interface Problem {
  type: string;
  title: string;
  detail?: string;
  /** Of `sequence-gap`. */
  lastSeq?: number;
}
