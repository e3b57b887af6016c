import type { Queued } from "../phone.ts";
import type { DeliveryRow, Evidence, KeyRow } from "./evidence.ts";
import type { Violation } from "./violation.ts";

/** Everything acknowledged is there and has ended as it may; nothing is left under way. */
export function judgeOutcomes(evidence: Evidence): Violation[] {
  const effects = new Map<Queued, number>();
  for (const { causes } of evidence.effects)
    for (const cause of causes) effects.set(cause, (effects.get(cause) ?? 0) + 1);
  const deleted = new Set(
    evidence.mutations.filter(({ body }) => body.op === "delete").map(({ record }) => record),
  );
  return evidence.mutations.flatMap((queued) => {
    const key = evidence.keys.get(queued.body.id);
    const found = (kind: Violation["kind"], what: string): Violation[] => [{ kind, what, about: [queued] }];
    if (!queued.acknowledged) return found("stuck", "an upload was never acknowledged");
    if (!key) return found("loss", "an acknowledged mutation is not there");
    if (key.status === null) return judgeOpen(evidence, queued);
    const isDone = (effects.get(queued) ?? 0) > 0;
    const fault = faultOf(queued, key, { isDone, isDeleted: deleted.has(queued.record) });
    return fault === undefined ? [] : found("loss", fault);
  });
}

function faultOf(
  { body }: Queued,
  { status, problem }: KeyRow,
  { isDone, isDeleted }: { isDone: boolean; isDeleted: boolean },
): string | undefined {
  // Two phones never delete one record, but a delete that was done and whose reply was lost may find it gone.
  if (status === "applied") return isDone ? undefined : `${body.op} is applied and never took effect`;
  const told = `${body.op} ended as ${status} (${problem?.code}: ${problem?.detail})`;
  if (body.op === "create") return told;
  return isDeleted && body.op === "update" ? undefined : told;
}

/** Without an outcome a mutation is parked, or held behind one that is parked or held. */
function judgeOpen({ deliveries, mutations }: Evidence, queued: Queued): Violation[] {
  const row = deliveries.get(queued.body.id);
  if (row?.state === "parked") {
    // Of the other classes nothing that the run does is for a person to decide.
    if (queued.body.entity === "opaque") return [];
    return [{ kind: "stuck", what: `a mutation of class ${queued.body.entity} is parked`, about: [queued] }];
  }
  if (row?.state === "held" && isBehindParked(deliveries, row)) return [];
  const blocker = mutations.find(({ body }) => body.id === row?.blocked_by);
  const what = `a mutation is left ${row?.state ?? "pending"}`;
  return [{ kind: "stuck", what, about: blocker ? [queued, blocker] : [queued] }];
}

function isBehindParked(deliveries: Evidence["deliveries"], row: DeliveryRow): boolean {
  const blocker = deliveries.get(row.blocked_by ?? "");
  return blocker?.state === "parked" || (blocker?.state === "held" && isBehindParked(deliveries, blocker));
}
