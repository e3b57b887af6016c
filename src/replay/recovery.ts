import type { Mutation } from "../inbox/mutation.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { mergePatch } from "../platform/json-text.ts";
import type { Author } from "./blocks.ts";
import type { SentBetween } from "./claim.ts";
import type { ReadyMutation } from "./prepare.ts";
import type { Slice } from "./slice.ts";
import { touchedIn } from "./three-way.ts";

const dayMs = 86_400_000;
/** Phones' clocks are wrong; by more than this hardly ever without being far off. */
const clockErrorMs = dayMs;
/** How much later than its receipt a mutation may claim to have occurred before its clock is not believed. */
const clockToleranceMs = 300_000;
/** Phones that keep what was acknowledged do so for about this long. */
const keptMs = 90 * dayMs;

/**
 * When a mutation may have been sent without a trace, as the database was put back to an earlier moment since: undefined
 * when it can't have been.
 *
 * A phone sends again what it still has, and those mutations come as new ones. What tells them from really new ones is
 * when they occurred. By a clock that runs ahead they would have occurred after the recovery; so a day is added, and a
 * time that had not come when the mutation was received counts as unknown. Without a time the receipt's is taken.
 */
export function sentBeforeRecovery(
  { mutation, author }: { mutation: Pick<Mutation, "occurredAt">; author: Pick<Author, "receivedAt"> },
  { recoveredAt }: { recoveredAt: Date | undefined },
  leaseMs: number,
): SentBetween | undefined {
  if (!recoveredAt) return undefined;
  const recovered = recoveredAt.getTime();
  const received = author.receivedAt.getTime();
  const claimed = mutation.occurredAt?.getTime();
  const isWrong = claimed !== undefined && claimed > received + clockToleranceMs;
  const occurred = claimed === undefined || isWrong ? undefined : claimed;
  const before = recovered + clockErrorMs;
  const isEarly = received < before || (occurred ?? received) < before;
  if (!isEarly && !(isWrong && received < recovered + keptMs)) return undefined;
  return {
    // Nothing is sent before it occurred. Where that is not known, no time is too early.
    from: new Date(Math.min(occurred ?? 0, recovered)),
    // An owner that has not heard of the recovery stops with its lease.
    until: new Date(recovered + leaseMs),
  };
}

/**
 * What a mutation set, as the client's later updates of the record would have left it: after the first of them, after the
 * second, and so on. When it may all have been done before, one of these may be what is found.
 */
export function ownLater(
  { entries }: Pick<Slice, "entries">,
  { mutation, data, config }: Pick<ReadyMutation, "mutation" | "data" | "config">,
): string[] {
  const later = entries.flatMap((entry) =>
    "mutation" in entry && isOfSameRecord(entry.mutation, mutation) ? [sentOf(entry.mutation, config)] : [],
  );
  return later.map((_, index) =>
    later.slice(0, index + 1).reduce((merged, patch) => mergePatch(merged, patch), data),
  );
}

/** Of a merge only what it touched. */
function sentOf({ data = "{}", base }: Mutation, { conflict }: EntityConfig): string {
  return conflict === "merge" && base !== undefined ? touchedIn(data, base) : data;
}

function isOfSameRecord(later: Mutation, { seq, entity, recordId }: Mutation): boolean {
  return later.seq > seq && later.op === "update" && later.entity === entity && later.recordId === recordId;
}
