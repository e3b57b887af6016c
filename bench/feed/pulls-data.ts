import { Client } from "pg";

import { takePositions, type FeedEntry } from "../../src/change-feed/write.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { scopeOf } from "../gateway.ts";
import type { PullsOptions } from "../options.ts";

/** The users whose scope is read; everybody else shares the rest. */
export const readers = { many: "many", few: "few" } as const;

/** Every so many records, one is in the scope of the reader of many. */
const manyEvery = 10;

const chunk = 2_000;

/** Records 1 to `records`, at the positions of the same number. */
export async function fillGateway(databaseUrl: string, { records, few }: PullsOptions): Promise<void> {
  const db = openDatabase(databaseUrl, { poolMax: 1, onError: () => undefined });
  for (let from = 1; from <= records; from += chunk) {
    const entries = numbers(from, records).map((n): FeedEntry => ({
      record: {
        entity: "activity",
        serverId: String(n),
        begunAt: 0,
        data: dataOf(n),
        scopes: [scopeOf(readerOf(n, records / few))],
        upstreamVersion: null,
        tempId: null,
        createdBy: null,
        changedBy: null,
        changedBase: null,
      },
    }));
    await inTenant(db, "bench", (trx) =>
      takePositions(trx, "bench", entries, new Map(), { codec: plainCodec, isFollowed: false }),
    );
  }
  await db.destroy();
}

/** The same in one table, whose key is what is asked for. */
export async function fillFloor(databaseUrl: string, { records, few }: PullsOptions): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query(`create table change (audience text, position bigint, entity text not null, id text not null,
    version bigint not null, data json not null, primary key (audience, position))`);
  for (let from = 1; from <= records; from += chunk) {
    const rows = numbers(from, records);
    await client.query(
      `insert into change select audience, position, 'activity', position::text, 1, data::json
      from unnest($1::text[], $2::bigint[], $3::text[]) as c (audience, position, data)`,
      [rows.map((n) => scopeOf(readerOf(n, records / few))), rows, rows.map(dataOf)],
    );
  }
  await client.end();
}

/** The position behind which the reader of many has so many changes to read. */
export function positionBefore(changes: number, { records }: PullsOptions): number {
  return records - changes * manyEvery;
}

/** How many changes the reader of many has in all. */
export function manyOf({ records }: PullsOptions): number {
  return records / manyEvery;
}

function readerOf(n: number, fewEvery: number): string {
  if (n % manyEvery === 0) return readers.many;
  return n % fewEvery === 1 ? readers.few : `other-${n % 997}`;
}

function numbers(from: number, max: number): number[] {
  return Array.from({ length: Math.min(chunk, max + 1 - from) }, (_, index) => from + index);
}

function dataOf(n: number): string {
  return JSON.stringify({
    mentor: String(1_000 + (n % 997)),
    date: "2026-03-14",
    minutes: n % 180,
    note: "Walked along the river; talked about work and about the weeks ahead.",
  });
}
