import { isObject, slicesAt } from "../platform/json-text.ts";
import type { Mutation, RejectedMutation } from "./mutation.ts";

/** A place in the log: a mutation to replay, or the mark of one that was rejected at ingest. */
export type LogEntry = { mutation: Mutation } | { rejected: Pick<RejectedMutation, "seq" | "id"> };

/** The text of a block: the accepted mutations as they were sent, in order, with marks in the place of the rejected. */
export function encodeBlock(entries: ({ text: string } | { rejected: RejectedMutation })[]): string {
  return `[${entries
    .map((entry) =>
      "text" in entry
        ? entry.text
        : JSON.stringify({ rejected: true, seq: entry.rejected.seq, id: entry.rejected.id }),
    )
    .join(",")}]`;
}

/** The entries of a block after `position`, in order. */
export function decodeBlock(text: string, position: number): LogEntry[] {
  const envelopes = JSON.parse(text) as (Envelope & { rejected?: true })[];
  const slices = slicesAt(text);
  return envelopes.flatMap((envelope, index): LogEntry[] => {
    const slice = slices[index];
    if (envelope.seq <= position || !slice) return [];
    if (envelope.rejected) return [{ rejected: { seq: envelope.seq, id: envelope.id.toLowerCase() } }];
    return [{ mutation: toMutation(envelope, text, slice.start) }];
  });
}

type Envelope = Omit<Mutation, "data" | "base" | "occurredAt"> & { occurredAt?: string | null };

function toMutation(envelope: Envelope, text: string, start: number): Mutation {
  const payload: Record<string, string> = {};
  for (const { key, start: from, end } of slicesAt(text, start)) {
    if (key === "data" || key === "base") payload[key] = text.slice(from, end);
  }
  return {
    seq: envelope.seq,
    id: envelope.id.toLowerCase(),
    entity: envelope.entity,
    op: envelope.op,
    recordId: envelope.recordId,
    baseVersion: envelope.baseVersion ?? null,
    base: objectText(payload["base"]),
    data: objectText(payload["data"]),
    dependsOn: (envelope.dependsOn ?? []).map((id) => id.toLowerCase()),
    schema: envelope.schema,
    occurredAt: envelope.occurredAt ? new Date(envelope.occurredAt) : null,
  };
}

/** null stands for nothing here, as in the mutations of many serializers. */
function objectText(text: string | undefined): string | undefined {
  return text !== undefined && isObject(text) ? text : undefined;
}
