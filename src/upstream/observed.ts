import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { valueAt } from "../platform/json-text.ts";
import { tempUuid } from "../platform/uuid.ts";
import type { UpstreamRecord } from "./connector.ts";
import type { UpstreamAnswer } from "./upstream.ts";

/** A record as somebody made it: perhaps one of our own creates, whose answer is still on its way. */
export interface ObservedRecord extends UpstreamAnswer {
  /** The temp ID (a bare UUID) that stands at the entity's `reference`. */
  tempId: string | undefined;
  /** When it was last changed, by the upstream's clock, where it says so. */
  changedAt: Date | undefined;
}

export interface ObservedPage {
  records: ObservedRecord[];
  /** IDs of records to be read: something happened to them. */
  changed: string[];
  /** Names the page that follows; undefined when there is none. */
  next: string | undefined;
  /** Of the last page: names the list of what changes after this one; undefined where the upstream keeps no track. */
  changes: string | undefined;
}

/** The answer, with what the record itself tells of its origin and its age. */
export function toObserved(
  answer: UpstreamAnswer,
  { body = "{}" }: UpstreamRecord,
  { reference, list }: EntityConfig,
): ObservedRecord {
  return {
    ...answer,
    tempId: reference === undefined ? undefined : tempIdIn(valueAt(body, reference)),
    changedAt: list?.updatedAt === undefined ? undefined : timeIn(valueAt(body, list.updatedAt)),
  };
}

function tempIdIn(value: unknown): string | undefined {
  return typeof value === "string" ? tempUuid(value) : undefined;
}

function timeIn(value: unknown): Date | undefined {
  const time = typeof value === "string" ? new Date(value) : undefined;
  return time && !Number.isNaN(time.getTime()) ? time : undefined;
}
