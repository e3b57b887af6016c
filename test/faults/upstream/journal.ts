import { appendFileSync } from "node:fs";

import type { CapabilityClass } from "../../fixtures/capability-classes.ts";

/** Whose mutation something is: the phone's number and the mutation's seq, or the record that a delete names. */
export type Marker = `${number}:${number}` | `-${string}`;

/** What became of a request. Only after `refused` did nothing happen and was that told. */
export type Fate = "answered" | "refused" | "unclear";

export type JournalLine =
  | {
      kind: "request";
      n: number;
      at: number;
      method: string;
      path: string;
      actor: string;
      marker: Marker | undefined;
      fault: string | undefined;
      fate: Fate;
    }
  | {
      /** The answer to an unclear request left as a whole: a sender that stood still meanwhile finds it. */
      kind: "answer";
      n: number;
      at: number;
    }
  | {
      kind: "effect";
      /** Of the request that caused it. */
      n: number;
      at: number;
      op: "create" | "update" | "delete";
      collection: CapabilityClass;
      id: string;
      markers: Marker[];
      /** The record afterwards, as text. */
      record: string | undefined;
    };

/** Every line is with the system when `write` returns. */
export function openJournal(path: string): { write: (line: JournalLine) => void } {
  return { write: (line) => appendFileSync(path, `${JSON.stringify(line)}\n`) };
}

/** What a request says of itself: a create by its birth, a change by the one field that is its phone's own. */
export function markerOf({
  method,
  path,
  body,
}: {
  method: string;
  path: string;
  body: Buffer;
}): Marker | undefined {
  if (method === "GET") return undefined;
  if (method === "DELETE") return `-${decodeURIComponent(path.slice(1))}`;
  const data = JSON.parse(body.toString()) as Record<string, unknown>;
  if (typeof data["born"] === "string") return data["born"] as Marker;
  return markersIn(data)[0];
}

/** Each phone writes its seq into a field of its own of each record that it changes. */
export function markersIn(data: Record<string, unknown>): Marker[] {
  return Object.entries(data).flatMap(([key, value]) =>
    /^c\d+$/.test(key) ? [`${Number(key.slice(1))}:${Number(value)}` as const] : [],
  );
}

/** The changes between two states of a record, by their markers. */
export function markersBetween(before: string | undefined, after: string): Marker[] {
  const known = new Set(before === undefined ? [] : markersIn(JSON.parse(before) as Record<string, unknown>));
  return markersIn(JSON.parse(after) as Record<string, unknown>).filter((marker) => !known.has(marker));
}
