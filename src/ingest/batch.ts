import { TidegateError } from "../platform/errors.ts";
import type { Limits } from "../platform/config/schema.ts";
import { endOfValue, walkMembers } from "../platform/json-text.ts";
import { contentReader } from "../inbox/fingerprint.ts";
import type { JudgedMutation } from "../inbox/log.ts";
import type { BatchEnvelope } from "./envelope.ts";
import { judgeMutation, type JudgeContext, type SentMutation } from "./judge.ts";

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
  const sent = sentMutations(text, context.limits);
  return envelope.mutations.map((mutation, index) => {
    const one = sent[index];
    if (!one) throw new Error("a mutation has no text");
    return judgeMutation(context, mutation, one);
  });
}

/** The mutations as they stand in the text, read in one pass. */
function sentMutations(text: string, { depth }: Pick<Limits, "depth">): SentMutation[] {
  let sent: SentMutation[] = [];
  // data and base stand one level below the mutation itself
  const contentAt = contentReader(text, depth + 1);
  walkMembers(text, (key, from) => {
    if (key !== "mutations") return endOfValue(text, from);
    // The last of repeated keys counts, as in JSON.parse.
    sent = [];
    return walkMembers(
      text,
      (_, start) => {
        const { end, canonical } = contentAt(start);
        sent.push({ text: text.slice(start, end), content: canonical });
        return end;
      },
      from,
    );
  });
  return sent;
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
  if (first && typeof lostThrough === "number" && lostThrough >= first.seq) {
    throw new TidegateError("invalid-request", "lostThrough must be below the first seq.");
  }
}
