import type { CapabilityClass } from "../../fixtures/capability-classes.ts";

/** What happens to a mutation's calls, one after the other, before one is answered normally. */
export const callFaults = ["429", "500", "500 after effect", "lose request", "lose reply"] as const;
export type CallFault = (typeof callFaults)[number] | "422";

/** One thing that a phone does. Records are counted by the creates of the phone's program. */
export type Deed = { faults: CallFault[] } & (
  | { op: "create"; entity: CapabilityClass; refersTo: number | undefined }
  | { op: "update"; record: number; refersTo: number | undefined }
  | { op: "delete"; record: number }
);

/** How a deed must end, and what the upstream then holds because of it. */
export interface Expected {
  line: "applied" | "parked" | "held" | "conflict" | "rejected";
  hasEffect: boolean;
}

interface Known {
  entity: CapabilityClass;
  state: "live" | "deleted" | "failed";
  /** Something that concerns it is parked or held. */
  isBlocked: boolean;
  /** That is its create. */
  isUnnamed: boolean;
  /** Something that refers to it is parked or held: its delete waits. */
  isReferred: boolean;
}

/**
 * What the contract says of one phone's program: a person would reckon it like this. One thing after the other, a failure
 * of class `opaque` parks, a refusal rejects, and both take along what builds on them.
 */
export function expectedOf(program: Deed[]): Expected[] {
  const records: Known[] = [];
  return program.map((deed) => {
    const other = deed.op === "delete" || deed.refersTo === undefined ? undefined : records[deed.refersTo];
    const own = deed.op === "create" ? undefined : records[deed.record];
    const entity = deed.op === "create" ? deed.entity : own!.entity;
    const expected = judge(deed, entity, own, other);
    const isOpen = expected.line === "parked" || expected.line === "held";
    if (isOpen && other) other.isReferred = true;
    if (deed.op === "create") {
      const state = expected.line === "rejected" ? "failed" : "live";
      records.push({ entity, state, isBlocked: isOpen, isUnnamed: isOpen, isReferred: false });
    } else if (isOpen) own!.isBlocked = true;
    else if (deed.op === "delete" && expected.line === "applied") own!.state = "deleted";
    return expected;
  });
}

function judge(
  { op, faults }: Deed,
  entity: CapabilityClass,
  own: Known | undefined,
  other: Known | undefined,
): Expected {
  const unsent = (line: Expected["line"]): Expected => ({ line, hasEffect: false });
  // A record that has its name by now can be referred to, whatever is parked of it.
  if (own?.isBlocked || other?.isUnnamed) return unsent("held");
  if (op === "delete" && own?.isReferred) return unsent("held");
  if (own?.state === "failed" || other?.state === "failed") return unsent("rejected");
  if (own?.state === "deleted") return unsent(op === "delete" ? "applied" : "conflict");
  if (faults[0] === "422") return unsent("rejected");
  const unclear = faults.find((fault) => fault !== "429");
  if (entity !== "opaque" || unclear === undefined) return { line: "applied", hasEffect: true };
  return { line: "parked", hasEffect: unclear === "500 after effect" || unclear === "lose reply" };
}
