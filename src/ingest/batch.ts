import { TidegateError } from "../platform/errors.ts";
import type { Limits } from "../platform/config/schema.ts";
import { slicesAt } from "../platform/json-text.ts";
import type { JudgedMutation } from "../inbox/log.ts";
import type { BatchEnvelope } from "./envelope.ts";
import { judgeMutation, type JudgeContext } from "./judge.ts";

/**
 * Judges a batch whose envelope is valid: first what fails it as a whole, then each mutation by itself.
 *
 * @param text the body as it was sent; `envelope` is the same, parsed.
 * @throws {TidegateError} `request-too-large`, `invalid-request`; nothing of the batch may be taken then.
 */
export function judgeBatch(
  context: JudgeContext & { limits: Limits },
  envelope: BatchEnvelope,
  text: string,
): JudgedMutation[] {
  assertFits(context.limits, envelope);
  assertInOrder(envelope);
  const list = slicesAt(text).findLast(({ key }) => key === "mutations");
  if (!list) throw new Error("a valid batch has no mutations member");
  const slices = slicesAt(text, list.start);
  return envelope.mutations.map((mutation, index) => {
    const slice = slices[index];
    if (!slice) throw new Error("a mutation has no text");
    return judgeMutation(context, mutation, text.slice(slice.start, slice.end));
  });
}

function assertFits(limits: Limits, { mutations }: BatchEnvelope): void {
  if (mutations.length <= limits.mutations) return;
  throw new TidegateError(
    "request-too-large",
    `The batch has ${mutations.length} mutations of at most ${limits.mutations}.`,
    { extensions: { limits } },
  );
}

function assertInOrder({ mutations, lostThrough }: BatchEnvelope): void {
  let last = 0;
  for (const { seq } of mutations) {
    if (seq <= last) {
      throw new TidegateError(
        "invalid-request",
        `mutations must stand in ascending seq; ${seq} follows ${last}.`,
      );
    }
    last = seq;
  }
  const [first] = mutations;
  if (first && lostThrough !== undefined && lostThrough >= first.seq) {
    throw new TidegateError("invalid-request", "lostThrough must be below the first seq.");
  }
}
