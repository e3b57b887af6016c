import type { DeliveryState } from "../platform/schema.ts";
import type { Attempt } from "./attempt-under-way.ts";
import type { ReadyMutation } from "./prepare.ts";
import { commitSlice, databaseNow, ensureLease, type Slice } from "./slice.ts";

/**
 * The lease must outlive the call; and the intent is written down before the call on an upstream that can't tell, and for
 * what the lane had passed, or a person sends again: it is not the head that is resolved behind an owner that died.
 */
export async function beforeSending(
  slice: Slice,
  { mutation, recordKey, refersTo }: ReadyMutation,
  { delivery, context }: Attempt,
  isOpaque: boolean,
): Promise<void> {
  await ensureLease(slice);
  const isTraced = slice.command !== undefined || mutation.seq <= slice.position;
  if (!isTraced && (!isOpaque || context.history.possiblySent)) return;
  await commitSlice(slice, {
    position: slice.position,
    failures: slice.failures,
    delivery: {
      upstreamId: slice.claim.upstreamId,
      clientId: slice.claim.clientId,
      mutationId: mutation.id,
      seq: mutation.seq,
      op: mutation.op,
      recordKey,
      refersTo,
      state: "sending" satisfies DeliveryState,
      blockedBy: null,
      possiblySent: false,
      // A look that comes first is no call: it must not put off the time from which its answer proves something.
      firstSentAt: context.history.possiblySent ? null : databaseNow(slice),
      lastSentAt: context.history.possiblySent ? null : databaseNow(slice),
      evidence: null,
      problem: null,
      isReset: delivery?.isReset,
      attempts: delivery?.attempts ?? 0,
    },
  });
}
