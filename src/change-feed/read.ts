import { sql, type Transaction } from "kysely";

import { readKnown } from "../inbox/results.ts";
import { toResults, type MutationResult } from "../inbox/result-view.ts";
import { readPacked } from "../platform/packed-rows.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { canSee, type Reader } from "../records/scopes.ts";
import { recordKey, type StoredRecord } from "../records/record.ts";
import { audiencesOf } from "./audience.ts";
import { readHead, type FeedHead } from "./head.ts";
import { readMovedSince } from "./moved-since.ts";
import {
  seen,
  seenColumns,
  toSeen,
  toShown,
  type SeenRecord,
  type SeenRow,
  type ShownRecord,
} from "./shown-record.ts";

export interface FeedReader extends Reader {
  tenantId: string;
  userId: string;
  /** Without it there are neither outcomes nor temp IDs. */
  clientId: string | undefined;
}

export type Change =
  | ({ type: "upsert" } & ShownRecord)
  | { type: "delete" | "revoke"; entity: string; id: string }
  | { type: "outcome"; result: MutationResult };

/** A change with its position: who has been told everything up to it goes on from there. */
export interface PlacedChange {
  position: number;
  change: Change;
  /**
   * A record that stands before its outcome, the next change, without a row of its own. Whoever goes on from here is told
   * both, so to stop between the two is no progress.
   */
  isBeforeOutcome?: true;
}

export interface ChangePage {
  changes: PlacedChange[];
  /** The position after this page: that of its last change, or the feed's head when there is nothing more. */
  position: number;
  more: boolean;
  /** Of the same moment. */
  head: FeedHead;
}

/**
 * The changes after a position, oldest first, as one reader may see them.
 *
 * A change is shown as the record stands now: what a reader is told is never older than what it was told before, and a
 * record that has left the reader's scopes since is a `revoke`. A record that changed several times in the page stands
 * once, at its first place.
 *
 * An outcome never comes before the change that it caused. Where the record has changed again since, that change may be
 * pruned: then the record stands before the outcome all the same, and the page has one change more than rows.
 *
 * @param trx one snapshot of the database for all statements.
 */
export async function readChanges(
  trx: Transaction<Database>,
  reader: FeedReader,
  { after, limit, codec }: { after: number; limit: number; codec: PayloadCodec },
): Promise<ChangePage> {
  const [head, rows] = await Promise.all([
    readHead(trx, reader.tenantId),
    readRows(trx, reader, { after, limit, codec }),
  ]);
  const more = rows.length > limit;
  const page = rows.slice(0, limit);
  const outcomes = await readOutcomes(trx, reader, page, codec);
  return {
    changes: toChanges(page, reader, outcomes),
    position: more ? (page.at(-1)?.position ?? after) : head.position,
    more,
    head,
  };
}

type FeedRow = { position: number; mutation_id: string | null; data: string | null } & (
  | ({ kind: "record" | "revoke" } & SeenRow)
  | { kind: "outcome" | "parked" }
);
const columns = ["position", "kind", "mutation_id", ...seenColumns] as const;

async function readRows(
  trx: Transaction<Database>,
  reader: FeedReader,
  { after, limit, codec }: { after: number; limit: number; codec: PayloadCodec },
): Promise<FeedRow[]> {
  const { tenantId } = reader;
  const audiences = audiencesOf(reader);
  // Each audience is read along the primary key; the first `limit + 1` rows of all are complete up to their last position.
  const rows = sql`
    select f.position, f.kind, f.mutation_id, ${seen}
    from (
      select distinct on (page.position) page.*
      from unnest(${audiences}::text[]) as a (audience)
      cross join lateral (
        select position, kind, entity, record_id, mutation_id from feed
        where tenant_id = ${tenantId} and audience = a.audience and position > ${after}
        order by position limit ${limit + 1}
      ) page
      order by page.position limit ${limit + 1}
    ) f
    left join record r on r.tenant_id = ${tenantId} and r.entity = f.entity and r.server_id = f.record_id`;
  return await readPacked<FeedRow>(trx, rows, { columns: [...columns], order: ["position"], codec });
}

interface Outcome {
  result: MutationResult;
  /** The record that it tells of, if that has changed since. */
  moved: StoredRecord | undefined;
}

async function readOutcomes(
  trx: Transaction<Database>,
  reader: FeedReader,
  rows: FeedRow[],
  codec: PayloadCodec,
): Promise<Map<string, Outcome>> {
  const outcomes = rows.flatMap((row) =>
    isOutcome(row) && row.mutation_id
      ? [{ kind: row.kind, mutationId: row.mutation_id, position: row.position }]
      : [],
  );
  const ids = outcomes.map(({ mutationId }) => mutationId);
  const [known, moved] = await Promise.all([
    readKnown(trx, reader.tenantId, ids),
    readMovedSince(trx, reader.tenantId, outcomes.filter(isFinal), codec),
  ]);
  const results = await toResults(trx, reader, [...known.values()], codec);
  return new Map(results.map((result) => [result.id, { result, moved: moved.get(result.id) }]));
}

function toChanges(rows: FeedRow[], reader: FeedReader, outcomes: Map<string, Outcome>): PlacedChange[] {
  const changes = new Map<string, PlacedChange>();
  for (const row of rows) {
    const key = isOutcome(row) ? row.mutation_id : `${row.entity}/${row.server_id}`;
    if (key === null || changes.has(key)) continue;
    const { position } = row;
    const { result, moved } = outcomes.get(key) ?? {};
    const change = isOutcome(row) ? toOutcomeChange(row, result) : toRecordChange(toSeen(row), reader);
    if (!change) continue;
    if (moved) putBeforeOutcome(changes, position, recordKey(moved), toRecordChange(moved, reader));
    changes.set(key, { position, change });
  }
  return [...changes.values()];
}

/** Puts the record into a page that comes before the outcome at a position, unless it stands there already. */
export function putBeforeOutcome(
  changes: Map<string, PlacedChange>,
  position: number,
  key: string,
  change: Change,
): void {
  if (!changes.has(key)) changes.set(key, { position: position - 1, change, isBeforeOutcome: true });
}

function isOutcome(row: FeedRow): row is Extract<FeedRow, { kind: "outcome" | "parked" }> {
  return row.kind === "outcome" || row.kind === "parked";
}

/** What is parked has changed nothing. */
export function isFinal({ kind }: Pick<FeedRow, "kind">): boolean {
  return kind === "outcome";
}

/** What is no longer parked is told where its outcome stands, behind the record change that it caused. */
export function toOutcomeChange(
  { kind }: Pick<FeedRow, "kind">,
  result: MutationResult | undefined,
): Change | undefined {
  if (!result || (kind === "parked" && result.status !== "parked")) return undefined;
  return { type: "outcome", result };
}

export function toRecordChange(record: SeenRecord, reader: FeedReader): Change {
  const { entity, serverId: id } = record;
  if (!canSee(reader, record.scopes)) return { type: "revoke", entity, id };
  const shown = toShown(record, reader.clientId);
  return shown ? { type: "upsert", ...shown } : { type: "delete", entity, id };
}
