import type { StoredProblem } from "../platform/schema.ts";

export type Operation = "create" | "update" | "delete";

/** One change the user made, as the phone sent it. `data` and `base` are JSON text. */
export interface Mutation {
  seq: number;
  id: string;
  entity: string;
  op: Operation;
  recordId: string;
  baseVersion: string | null;
  base: string | undefined;
  data: string | undefined;
  dependsOn: string[];
  /** The app's data version, if it said one. */
  schema?: string | number | null | undefined;
  /** By the phone's clock. */
  occurredAt: Date | null;
}

/** A mutation that was judged at ingest. Its place in the log is kept, its payload is not. */
export interface RejectedMutation {
  seq: number;
  id: string;
  problem: StoredProblem;
}
