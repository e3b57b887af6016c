import { randomUUID } from "node:crypto";

import { dropCursor, mapId, putRecord, versionSeen } from "./local-records.ts";
import { readClient, type PhoneDb } from "./phone-db.ts";
import type { Batch, Edit, Page, Problem, Receipt, Result } from "./protocol.ts";
import type { Anew } from "./resync.ts";

/*
 * The outbox, as the protocol wants it:
 *
 * - A mutation is written once and never changed: not its id, not its temp IDs, not its data.
 * - Once acknowledged it is not sent any more, but kept, because a server that was restored asks for it again.
 * - It is settled by its own final result and by nothing else; until then the user sees its effect.
 */

/** A mutation in the outbox, with its latest known result. */
export interface Queued extends Edit {
  seq: number;
  id: string;
  result: Result | undefined;
}

interface OutboxRow {
  seq: number;
  id: string;
  mutation: string;
  result: string | null;
}

/** Queues an edit. From here on it survives a crash. */
export function enqueue(db: PhoneDb, edit: Edit): void {
  const baseVersion = edit.op === "create" ? {} : { baseVersion: versionSeen(db, edit) };
  const mutation = JSON.stringify({ ...edit, ...baseVersion, occurredAt: new Date().toISOString() });
  db.atomically(() => {
    db.run("update client set last_seq = last_seq + 1");
    const { last_seq: seq } = readClient(db);
    db.run("insert into outbox (seq, id, mutation) values (?, ?, ?)", seq, randomUUID(), mutation);
  });
}

/** The oldest mutations that were not acknowledged, as they are sent. */
export function nextBatch(db: PhoneDb, max: number): Batch {
  const { client_id, acked_seq, pruned_seq, cursor } = readClient(db);
  const waiting = "select * from outbox where acked_at is null order by seq limit ?";
  return {
    clientId: client_id,
    previousSeq: Math.max(acked_seq, pruned_seq),
    // The server asked for what was dropped here: it has to know that nobody has it any more.
    ...(pruned_seq > acked_seq && { lostThrough: pruned_seq }),
    sentAt: new Date().toISOString(),
    ...(cursor !== null && { cursor }),
    mutations: db.rows<OutboxRow>(waiting, max).map(({ seq, id, mutation }) => ({
      seq,
      id,
      ...(JSON.parse(mutation) as Edit),
    })),
  };
}

export function hasUnsent(db: PhoneDb): boolean {
  return db.rows("select 1 from outbox where acked_at is null limit 1").length > 0;
}

/** Everything that is still kept. */
export function readOutbox(db: PhoneDb): Queued[] {
  return db.rows<OutboxRow>("select * from outbox order by seq").map(toQueued);
}

/** What the user still waits for. */
export function readUnsettled(db: PhoneDb): Queued[] {
  return db.rows<OutboxRow>("select * from outbox where is_settled = 0 order by seq").map(toQueued);
}

/** An upload was answered: records first, then results, so that none flickers between the two. */
export function takeReceipt(db: PhoneDb, receipt: Receipt): void {
  const { ackedSeq, results, idMappings, changes, cursor, cursorProblem } = receipt;
  db.atomically(() => {
    db.run("update client set acked_seq = ?", ackedSeq);
    for (const { tempId, serverId } of idMappings) mapId(db, tempId, serverId);
    if (changes && cursor !== undefined) follow(db, { changes, cursor });
    if (cursorProblem) dropCursor(db);
    for (const result of results) {
      db.run("update outbox set acked_at = coalesce(acked_at, ?) where id = ?", Date.now(), result.id);
      settle(db, result);
    }
  });
}

/** The ids of what was acknowledged and may belong to the client that this phone was before: it has to be asked for by id. */
export function readAnothers(db: PhoneDb): string[] {
  const sql = "select id from outbox where may_be_anothers = 1 and acked_at is not null and is_settled = 0";
  return db.rows<{ id: string }>(sql).map(({ id }) => id);
}

/** Outcomes that were asked for; the changes to the records have to be there before. */
export function takeResults(db: PhoneDb, results: readonly Result[]): void {
  db.atomically(() => {
    for (const result of results) settle(db, result);
  });
}

/** A page of the feed: the cursor moves together with what came. */
export function takePage(db: PhoneDb, page: Page): void {
  db.atomically(() => follow(db, page));
}

/**
 * Everything was read anew. It takes the place of what there was in one piece: a phone that dies before has its old
 * records, no cursor, and begins again; and no record is there twice, under its temp ID and under its own.
 */
export function takeAnew(db: PhoneDb, { records, results, changes, cursor }: Anew): void {
  db.atomically(() => {
    db.run("delete from record");
    for (const record of records) putRecord(db, { type: "upsert", ...record });
    for (const result of results) settle(db, result);
    follow(db, { changes, cursor });
  });
}

/** `sequence-gap`: the server has less than it once acknowledged, and gets the rest again. */
export function rewind(db: PhoneDb, { lastSeq = 0 }: Problem): void {
  db.atomically(() => {
    db.run("update client set acked_seq = ?", lastSeq);
    db.run("update outbox set acked_at = null, result = null, is_settled = 0 where seq > ?", lastSeq);
  });
}

/**
 * `sequence-reused`: this database was copied or restored. A new client sends the same mutations, ids unchanged. What the
 * old one had sent already stays the old one's: its outcome does not come with the new one's changes.
 */
export function becomeNewClient(db: PhoneDb): void {
  db.atomically(() => {
    db.run("delete from outbox where is_settled = 1");
    const seqs = db.rows<{ seq: number }>("select seq from outbox order by seq");
    for (const [index, { seq }] of seqs.entries()) {
      const sql = "update outbox set seq = ?, acked_at = null, may_be_anothers = 1 where seq = ?";
      db.run(sql, index + 1, seq);
    }
    db.run(
      "update client set client_id = ?, last_seq = ?, acked_seq = 0, pruned_seq = 0",
      randomUUID(),
      seqs.length,
    );
    // A cursor is its client's own.
    dropCursor(db);
  });
}

/** Drops settled mutations that the server will not ask for any more. @param keepAckedDays as the server advertises */
export function prune(db: PhoneDb, keepAckedDays: number): void {
  const old = `is_settled = 1 and acked_at <= ${Date.now() - keepAckedDays * 86_400_000}`;
  db.atomically(() => {
    const upTo = `coalesce((select max(seq) from outbox where ${old}), 0)`;
    db.run(`update client set pruned_seq = max(pruned_seq, ${upTo})`);
    db.run(`delete from outbox where ${old}`);
  });
}

function follow(db: PhoneDb, { changes, cursor }: Pick<Page, "changes" | "cursor">): void {
  for (const change of changes) {
    if (change.type === "outcome") settle(db, change.result);
    else putRecord(db, change);
  }
  db.run("update client set cursor = ?", cursor);
}

const finalStatuses = ["applied", "conflict", "rejected"];

function settle(db: PhoneDb, result: Result): void {
  const { status, tempId, recordId } = result;
  if (status === "applied" && tempId !== undefined && recordId !== undefined) mapId(db, tempId, recordId);
  const isFinal = finalStatuses.includes(result.status) ? 1 : 0;
  const sql = "update outbox set result = ?, is_settled = ? where id = ?";
  db.run(sql, JSON.stringify(result), isFinal, result.id);
}

function toQueued({ seq, id, mutation, result }: OutboxRow): Queued {
  const edit = JSON.parse(mutation) as Edit;
  return { ...edit, seq, id, result: result === null ? undefined : (JSON.parse(result) as Result) };
}
