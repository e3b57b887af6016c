import { randomUUID } from "node:crypto";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";

/** What a phone must not forget, in one SQLite file. */
export interface PhoneDb {
  run: (sql: string, ...values: SQLInputValue[]) => void;
  rows: <Row>(sql: string, ...values: SQLInputValue[]) => Row[];
  /** All of it or nothing, also when the phone dies in between. Not to be nested. */
  atomically: (work: () => void) => void;
  close: () => void;
}

export interface ClientRow {
  client_id: string;
  /** The last seq that was given to a mutation; seqs only grow, so it is kept apart from them. */
  last_seq: number;
  acked_seq: number;
  /** Acknowledged mutations up to here may have been dropped. */
  pruned_seq: number;
  cursor: string | null;
}

/** The clientId stands beside the mutations, so that a backup restores them together. */
const schema = `
  create table if not exists client (
    one integer primary key check (one = 1), client_id text not null, cursor text,
    last_seq integer not null default 0, acked_seq integer not null default 0, pruned_seq integer not null default 0);
  create table if not exists outbox (
    seq integer primary key, id text not null unique, mutation text not null,
    acked_at integer, result text, is_settled integer not null default 0,
    may_be_anothers integer not null default 0);
  create table if not exists id_map (temp_id text primary key, server_id text not null);
  create table if not exists record (
    entity text not null, id text not null, version text not null, data text not null, primary key (entity, id));
`;

export function openPhoneDb(path: string): PhoneDb {
  const db = new DatabaseSync(path);
  db.exec(schema);
  db.prepare("insert or ignore into client (one, client_id) values (1, ?)").run(randomUUID());
  return {
    run: (sql, ...values) => void db.prepare(sql).run(...values),
    rows: <Row>(sql: string, ...values: SQLInputValue[]) => db.prepare(sql).all(...values) as Row[],
    atomically(work) {
      db.exec("begin immediate");
      try {
        work();
        db.exec("commit");
      } catch (error) {
        db.exec("rollback");
        throw error;
      }
    },
    close: () => db.close(),
  };
}

export function readClient(db: PhoneDb): ClientRow {
  const [client] = db.rows<ClientRow>("select * from client");
  if (!client) throw new Error("the client's row is missing");
  return client;
}
