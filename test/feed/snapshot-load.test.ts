import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { readHead } from "../../src/change-feed/head.ts";
import { pullChanges, type FeedDeps } from "../../src/change-feed/pull.ts";
import { takeSnapshot } from "../../src/change-feed/snapshot.ts";
import { RecordMoved, takePositions, type RecordWrite } from "../../src/change-feed/write.ts";
import type { Identity } from "../../src/http/identity.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { lockRecords } from "../../src/records/record.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;
let deps: FeedDeps;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 8, onError: () => undefined });
  const { epoch } = await inTenant(db, "none", (trx) => readHead(trx, "none"));
  deps = {
    db,
    codec: plainCodec,
    cursorSecrets: ["the tests' cursor secret, long enough"],
    epoch: () => epoch,
  };
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

const scopes = Array.from({ length: 12 }, (_, n) => `group:${n}`);
const others = Array.from({ length: 60 }, (_, n) => `nobody:${n}`);

/** A transaction's writes: where each record stands afterwards; null when it is deleted. */
interface Commit {
  writes: { record: number; scopes: string[]; isDeleted: boolean }[];
  /** How long it keeps what it has written to itself. */
  sleepMs: number;
}

const commit: fc.Arbitrary<Commit> = fc.record({
  writes: fc.uniqueArray(
    fc.record({
      record: fc.nat(199),
      scopes: fc.uniqueArray(fc.constantFrom(...scopes), { maxLength: 5 }),
      isDeleted: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
    }),
    { selector: ({ record }) => record, minLength: 60, maxLength: 120, size: "max" },
  ),
  sleepMs: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.constantFrom(2, 10)),
});
const writer = fc.array(commit, { minLength: 12, maxLength: 16, size: "max" });
/** Page sizes, one after the other, over and over. */
const limits = fc.array(fc.constantFrom(1, 7, 40, 200, 1_000), { minLength: 3, maxLength: 5 });

const slow = { timeout: 90_000 };

test(
  "among thousands of changes by writers slow and fast, snapshots and their cursors end with what there is",
  slow,
  async () => {
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(writer, { minLength: 4, maxLength: 4 }),
        fc.array(limits, { minLength: 3, maxLength: 3 }),
        async (programs, sizes) => {
          const tenantId = `run${runs++}`;
          const seen = [scopes, scopes.slice(2, 4), [...others, ...scopes.slice(5)]];
          const writing = new AbortController();
          const reading = seen.map(async (own, n) => {
            const reader = newReader(tenantId, own, sizes[n]!);
            let snapshots = 0;
            for (; !writing.signal.aborted; snapshots++) {
              await reader.snapshot();
              await reader.follow();
            }
            // The last one began while there was writing.
            await reader.follow();
            expect(snapshots).toBeGreaterThan(0);
            return reader.held;
          });
          const follower = newReader(tenantId, scopes, sizes[0]!);
          await follower.snapshot();
          try {
            await Promise.all(programs.map((program) => writeAll(tenantId, program)));
          } finally {
            writing.abort();
          }
          await follower.follow();
          const held = [...(await Promise.all(reading)), follower.held];
          for (const [n, own] of [...seen, scopes].entries()) {
            expect(Object.fromEntries(held[n]!)).toEqual(await versionsIn(tenantId, own));
          }
        },
      ),
      { numRuns: 2, endOnFailure: true },
    );
  },
);

async function writeAll(tenantId: string, program: Commit[]): Promise<void> {
  for (const one of program) {
    for (let isDone = false; !isDone;) {
      isDone = await write(tenantId, one).then(
        () => true,
        (error: unknown) => {
          if (error instanceof RecordMoved) return false;
          throw error;
        },
      );
    }
  }
}

async function write(tenantId: string, { writes, sleepMs }: Commit): Promise<void> {
  const entries = writes.map((one): { record: RecordWrite } => ({
    record: {
      entity: "activity",
      serverId: String(one.record),
      begunAt: 0,
      data: one.isDeleted ? null : "{}",
      scopes: one.scopes,
      upstreamVersion: null,
      tempId: null,
      createdBy: null,
      changedBy: null,
      changedBase: null,
    },
  }));
  await inTenant(db, tenantId, async (trx) => {
    const locked = await lockRecords(
      trx,
      tenantId,
      entries.map(({ record }) => record),
    );
    await takePositions(trx, tenantId, entries, locked, { codec: plainCodec, isFollowed: false });
    if (sleepMs > 0) await sql`select pg_sleep(${sleepMs / 1_000})`.execute(trx);
  });
}

function newReader(tenantId: string, own: string[], sizes: number[]) {
  const identity: Identity = {
    tenantId,
    userId: "kari",
    scopes: own.toSorted(),
    roles: [],
    expiresAtMs: Infinity,
  };
  const shown = new Map<string, number>();
  let turn = 0;
  const reader = { held: new Map<string, number>(), snapshot, follow };
  let cursor: string | undefined;

  function show(into: Map<string, number>, { id, version }: { id: string; version: string }): void {
    expect(Number(version)).toBeGreaterThanOrEqual(shown.get(id) ?? 0);
    shown.set(id, Number(version));
    into.set(id, Number(version));
  }
  const nextLimit = (): number => sizes[turn++ % sizes.length]!;

  async function snapshot(): Promise<void> {
    const records = new Map<string, number>();
    cursor = undefined;
    for (let page: string | undefined; cursor === undefined;) {
      const answer = await takeSnapshot({ ...deps, polledOf: nothingPolled }, identity, {
        clientId: undefined,
        page,
        limit: nextLimit(),
      });
      for (const record of answer.records) {
        expect(records.has(record.id)).toBe(false);
        show(records, record);
      }
      ({ page, cursor } = answer);
    }
    reader.held = records;
  }

  async function follow(): Promise<void> {
    for (let more = true; more;) {
      const page = await pullChanges(deps, identity, { clientId: undefined, cursor, limit: nextLimit() });
      for (const change of page.changes) {
        if (change.type === "upsert") show(reader.held, change);
        else if (change.type !== "outcome") reader.held.delete(change.id);
      }
      ({ cursor, more } = page);
    }
  }
  return reader;
}

/** The versions of the records that stand in one of the scopes. */
async function versionsIn(tenantId: string, own: string[]): Promise<Record<string, number>> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ server_id: string; version: string; scopes: string[] }>`
      select server_id, version, scopes from record where tenant_id = ${tenantId} and not deleted`.execute(
      trx,
    ),
  );
  const visible = rows.filter((row) => row.scopes.some((scope) => own.includes(scope)));
  return Object.fromEntries(visible.map((row) => [row.server_id, Number(row.version)]));
}

const nothingPolled = () => ({ upstreamId: "", entities: [] });
