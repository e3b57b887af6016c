import { randomUUID } from "node:crypto";

import { sql, type Kysely } from "kysely";
import { Pool } from "pg";

import { createReadNext, type ReadNext } from "../../../src/change-feed/follow.ts";
import type { FeedDeps } from "../../../src/change-feed/pull.ts";
import { readHead } from "../../../src/change-feed/head.ts";
import { inTenant, openDatabase } from "../../../src/platform/db.ts";
import { plainCodec } from "../../../src/platform/payload-codec.ts";
import type { Database } from "../../../src/platform/schema.ts";
import { createTestDatabase } from "../../fixtures/postgres.ts";

/** A database in which every schedule has a tenant of its own, and whoever writes is written down. */
export interface World {
  db: Kysely<Database>;
  feed: FeedDeps;
  /** As event streams and long polls read. */
  readNext: ReadNext;
  /** Past row-level security. */
  query: <T>(text: string, values: unknown[]) => Promise<T[]>;
  close: () => Promise<void>;
}

/** What is pruned or overwritten later stays known here. */
const journal = `
  create schema journal;
  create table journal.feed as select * from tidegate.feed;
  create table journal.record as
    select tenant_id, entity, server_id, version, feed_position, deleted, scopes from tidegate.record;
  create index on journal.feed (tenant_id);
  create index on journal.record (tenant_id);
  create function journal.note_feed() returns trigger language plpgsql security definer as $$
    begin insert into journal.feed select new.*; return null; end $$;
  create function journal.note_record() returns trigger language plpgsql security definer as $$
    begin
      insert into journal.record select new.tenant_id, new.entity, new.server_id, new.version, new.feed_position,
        new.deleted, new.scopes;
      return null;
    end $$;
  create trigger note after insert on tidegate.feed for each row execute function journal.note_feed();
  create trigger note after insert or update on tidegate.record for each row execute function journal.note_record()`;

export async function openWorld(): Promise<World> {
  const database = await createTestDatabase();
  const owner = new Pool({ connectionString: database.superuserUrl, max: 4 });
  await owner.query(journal);
  const db = openDatabase(database.serviceUrl, { poolMax: 24, onError: () => undefined });
  const { epoch } = await inTenant(db, "none", (trx) => readHead(trx, "none"));
  const feed = {
    db,
    codec: plainCodec,
    cursorSecrets: ["the tests' cursor secret, long enough"],
    epoch: () => epoch,
  };
  return {
    db,
    feed,
    readNext: createReadNext(feed),
    query: async <T>(text: string, values: unknown[]) => (await owner.query(text, values)).rows as T[],
    async close() {
      await db.destroy();
      await owner.end();
      await database.drop();
    },
  };
}

/** A client whose lane is in hand, with the mutations that it has sent. */
export interface Lane {
  clientId: string;
  userId: string;
  mutationIds: string[];
}

export async function openLanes(
  { query }: World,
  tenantId: string,
  { lanes, mutations }: { lanes: number; mutations: number },
): Promise<Lane[]> {
  const opened = Array.from({ length: lanes }, (_, n) => ({
    clientId: randomUUID(),
    userId: `user-${n}`,
    mutationIds: Array.from({ length: mutations }, () => randomUUID()),
  }));
  await query(
    `with upload as (
      select client_id, user_id, ids from unnest($2::uuid[], $3::text[], $4::jsonb[]) as u (client_id, user_id, ids)
    ), clients as (
      insert into tidegate.client (tenant_id, client_id, user_id, last_seq)
      select $1, client_id, user_id, $5 from upload
    ), lanes as (
      insert into tidegate.lane (tenant_id, lane_id, upstream_id, client_id, tail, due_at, epoch, owner, lease_until)
      select $1, client_id::text, 'crm', client_id, $5, now(), 1, 'test', now() + interval '1 hour' from upload
    )
    insert into tidegate.mutation_key (tenant_id, mutation_id, client_id, seq, entity, fingerprint)
    select $1, m.id::uuid, client_id, m.seq, 'activity', ''
    from upload cross join jsonb_array_elements_text(ids) with ordinality as m (id, seq)`,
    [
      tenantId,
      opened.map(({ clientId }) => clientId),
      opened.map(({ userId }) => userId),
      opened.map(({ mutationIds }) => JSON.stringify(mutationIds)),
      mutations,
    ],
  );
  return opened;
}

/** Keeps everybody of the tenant waiting who is about to commit. */
export async function holdCounter({ db }: World, tenantId: string, holdMs: number): Promise<void> {
  await inTenant(db, tenantId, async (trx) => {
    await sql`select 1 from feed_head where tenant_id = ${tenantId} for update`.execute(trx);
    await sql`select pg_sleep(${holdMs / 1_000})`.execute(trx);
  });
}
