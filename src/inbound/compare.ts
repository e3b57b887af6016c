import type { RecordWrite } from "../change-feed/write.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { RecordKey, StoredRecord } from "../records/record.ts";
import { isSameRecord } from "../records/same-record.ts";
import { scopesOf } from "../records/scopes.ts";
import type { ObservedRecord } from "../upstream/observed.ts";
import type { OpenCreate } from "./creates-under-way.ts";
import type { LookLater } from "./look.ts";

/** What an upstream said of a record. */
export interface Seen extends RecordKey {
  /** Undefined when it said that there is none. */
  found: ObservedRecord | undefined;
  /** It was read by itself, and not found in a list, which may be older. */
  wasRead: boolean;
  /** It has been unknown for as long as a create may be under way. */
  waited?: boolean;
}

/** What is known where a record was seen. */
export interface Known {
  config: EntityConfig;
  stored: StoredRecord | undefined;
  /** The feed's head before the upstream was asked: what was written after it may be newer than what was seen. */
  askedAt: number;
  /** The create whose temp ID the record carries. */
  openCreate: OpenCreate | undefined;
  /** For so long yet the record may be that of a create under way. */
  createForMs: number | undefined;
  /** How long the upstream's lists may lack a change. */
  lagMs: number;
  /** By the database's clock. */
  nowMs: number;
}

export type Comparison =
  | { kind: "same" | "unreadable" }
  /** It is for somebody to know. */
  | { kind: "changed"; record: RecordWrite }
  /** What was seen does not say enough. */
  | { kind: "look"; look: LookLater };

const same: Comparison = { kind: "same" };

/** How soon an unknown record is looked at again that may be one of ours. */
const againMs = 1_000;

/** What a record that was seen comes to. Nothing that was seen makes a record older than it is known. */
export function compare(seen: Seen, known: Known): Comparison {
  const { found } = seen;
  const { stored, askedAt } = known;
  if (stored && stored.feedPosition > askedAt) return look(seen, 0);
  if (!found) return stored && !stored.deleted ? changed(seen, stored, stored.scopes, null) : same;
  if (found.data === undefined) return { kind: "unreadable" };
  const scopes = scopesOf(known.config.scopes, found.data);
  if (!stored) return appeared(seen, known, scopes, found.data);
  if (!stored.deleted && isSameRecord(stored.data ?? "", found.data, known.config)) {
    return isSameList(stored.scopes, scopes) ? same : seenByOthers(seen, stored, scopes);
  }
  if (!seen.wasRead) {
    // A list may still show what was deleted, or what was there before our change.
    const changedMs = stored.changedAt?.getTime() ?? 0;
    if (stored.deleted || changedMs + known.lagMs > known.nowMs)
      return look(seen, Math.max(0, changedMs + known.lagMs - known.nowMs));
  }
  return changed(seen, stored, scopes, found.data);
}

function look({ entity, serverId }: RecordKey, inMs: number): Comparison {
  return { kind: "look", look: { entity, serverId, inMs } };
}

/** A record that nobody here knew: somebody else's, or one that a client's create has just made. */
function appeared(seen: Seen, known: Known, scopes: string[], data: string): Comparison {
  const { entity, serverId, found } = seen;
  const { openCreate, createForMs, config } = known;
  const isOurs = openCreate?.entity === entity && (openCreate.adopted ?? serverId) === serverId;
  const mayBeOurs = config.reference === undefined && createForMs !== undefined && !seen.waited;
  if (mayBeOurs) {
    return { kind: "look", look: { entity, serverId, inMs: againMs, waitMs: createForMs } };
  }
  const { record } = changed(seen, undefined, scopes, data);
  if (!isOurs || found?.tempId === undefined) return { kind: "changed", record };
  return { kind: "changed", record: { ...record, tempId: found.tempId, createdBy: openCreate.clientId } };
}

/** The configuration has other scopes than when the record was written. For everybody else nothing has happened. */
function seenByOthers(seen: Seen, stored: StoredRecord, scopes: string[]): Comparison {
  const { record } = changed(seen, stored, scopes, stored.data);
  const { upstreamVersion } = stored;
  return { kind: "changed", record: { ...record, upstreamVersion, isOnlyScopes: true } };
}

/** Scopes are sorted. */
function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, index) => name === b[index]);
}

function changed(
  { entity, serverId, found }: Seen,
  stored: StoredRecord | undefined,
  scopes: string[],
  data: string | null,
): { kind: "changed"; record: RecordWrite } {
  const record: RecordWrite = {
    entity,
    serverId,
    begunAt: stored?.feedPosition ?? 0,
    data,
    scopes,
    upstreamVersion: found?.version ?? null,
    tempId: null,
    createdBy: null,
    changedBy: null,
    changedBase: null,
    before: stored?.data ?? null,
  };
  return { kind: "changed", record };
}
