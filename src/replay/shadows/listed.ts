import { sql, type Kysely, type Selectable, type Transaction } from "kysely";

import { inTenant } from "../../platform/db.ts";
import type { Database, ShadowListingTable } from "../../platform/schema.ts";
import type { HeldEntity } from "./match-value.ts";

/** How far an entity's records are listed. */
export interface Listing {
  pointer: string;
  secretId: string;
  /** The page to read next; undefined for the first. */
  next: string | undefined;
  pass: number;
  /** This pass has found a record that none before it had. */
  foundNew: boolean;
  isFinished: boolean;
}

export interface ListedPage {
  /** By the shadow's own ID, the hash of the record's value in hex; null where it has none. */
  hashes: ReadonlyMap<string, string | null>;
  next: string | undefined;
}

/** In a busy system every pass would find something. */
const passesMax = 5;

/**
 * Where the listing of an entity stands; begun if it was not. One that is not finished, and was begun for another field
 * or under a secret that is not known, is begun anew.
 *
 * @param secretIds newest first.
 * @throws when the shadow has been forgotten.
 */
export async function takeUp(
  db: Kysely<Database>,
  of: HeldEntity,
  { pointer, secretIds }: { pointer: string; secretIds: readonly string[] },
): Promise<Listing> {
  const [newest = ""] = secretIds;
  return await inTenant(db, of.tenantId, async (trx) => {
    await sql`
      insert into shadow_listing (tenant_id, upstream_id, entity, pointer, secret_id)
      select tenant_id, upstream_id, ${of.entity}, ${pointer}, ${newest} from shadow
      where tenant_id = ${of.tenantId} and upstream_id = ${of.upstreamId}
      for share
      on conflict (tenant_id, upstream_id, entity) do nothing`.execute(trx);
    const found = await lockListing(trx, of);
    const isSame = found.pointer === pointer && secretIds.includes(found.secretId);
    if (found.isFinished || isSame) return found;
    await sql`
      delete from shadow_listed
      where tenant_id = ${of.tenantId} and upstream_id = ${of.upstreamId} and entity = ${of.entity}`.execute(
      trx,
    );
    const anew = { ...found, pointer, secretId: newest, next: undefined, pass: 1, foundNew: false };
    await writeListing(trx, of, anew);
    return anew;
  });
}

/**
 * Keeps a page, and where the listing stands after it. A page without a record that is new to the pass ends the pass; a
 * pass without one that is new to all ends the listing.
 *
 * @param from where it stood when the page was asked for.
 * @returns undefined when it stands elsewhere by now: another process lists the same, and nothing was kept.
 */
export async function keepPage(
  db: Kysely<Database>,
  of: HeldEntity,
  from: Listing,
  { hashes, next }: ListedPage,
): Promise<Listing | undefined> {
  return await inTenant(db, of.tenantId, async (trx) => {
    const found = await lockListing(trx, of);
    const isSame = (["pointer", "secretId", "next", "pass", "isFinished"] as const).every(
      (key) => found[key] === from[key],
    );
    if (!isSame) return undefined;
    const { newToPass, newToAll } = await writeListed(trx, of, hashes, from.pass);
    const foundNew = from.foundNew || newToAll > 0;
    const isPassOver = next === undefined || newToPass === 0;
    const isFinished = isPassOver && (!foundNew || from.pass >= passesMax);
    const after = isPassOver
      ? { ...from, next: undefined, pass: from.pass + 1, foundNew: false, isFinished }
      : { ...from, next, foundNew };
    await writeListing(trx, of, after);
    return after;
  });
}

/** By entity. */
export async function readListings(
  db: Kysely<Database>,
  tenantId: string,
  upstreamId: string,
): Promise<Map<string, Listing>> {
  const rows = await inTenant(db, tenantId, (trx) =>
    trx
      .selectFrom("shadow_listing")
      .selectAll()
      .where("tenant_id", "=", tenantId)
      .where("upstream_id", "=", upstreamId)
      .execute(),
  );
  return new Map(rows.map((row) => [row.entity, toListing(row)]));
}

async function lockListing(
  trx: Transaction<Database>,
  { tenantId, upstreamId, entity }: HeldEntity,
): Promise<Listing> {
  const row = await trx
    .selectFrom("shadow_listing")
    .selectAll()
    .where("tenant_id", "=", tenantId)
    .where("upstream_id", "=", upstreamId)
    .where("entity", "=", entity)
    .forUpdate()
    .executeTakeFirstOrThrow();
  return toListing(row);
}

function toListing(row: Selectable<ShadowListingTable>): Listing {
  return {
    pointer: row.pointer,
    secretId: row.secret_id,
    next: row.next_page ?? undefined,
    pass: row.pass,
    foundNew: row.found_new,
    isFinished: row.finished_at !== null,
  };
}

async function writeListing(
  trx: Transaction<Database>,
  { tenantId, upstreamId, entity }: HeldEntity,
  {
    pointer,
    secretId,
    next = null,
    pass,
    foundNew,
    isFinished,
  }: Omit<Listing, "next"> & { next?: string | null | undefined },
): Promise<void> {
  await sql`
    update shadow_listing set pointer = ${pointer}, secret_id = ${secretId}, next_page = ${next}, pass = ${pass},
      found_new = ${foundNew}, finished_at = case when ${isFinished} then now() end
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx);
}

/** How many of them the pass had not found before, and how many none had. */
async function writeListed(
  trx: Transaction<Database>,
  { tenantId, upstreamId, entity }: HeldEntity,
  hashes: ReadonlyMap<string, string | null>,
  pass: number,
): Promise<{ newToPass: number; newToAll: number }> {
  const { rows } = await sql<{ new_to_pass: number; new_to_all: number }>`
    with page as (
      select * from unnest(${[...hashes.keys()]}::text[], ${[...hashes.values()]}::text[]) as p (own_id, hash)
    ), counted as (
      -- A plan from when the table was empty has to stay good: each is looked up by its own key.
      select count(*) filter (where not exists (
        select 1 from shadow_listed l where l.tenant_id = ${tenantId} and l.upstream_id = ${upstreamId}
          and l.entity = ${entity} and l.own_id = page.own_id
      )) as new_to_all from page
    ), written as (
      insert into shadow_listed as l (tenant_id, upstream_id, entity, own_id, value_hash, seen_in)
      select ${tenantId}, ${upstreamId}, ${entity}, own_id, decode(hash, 'hex'), ${pass}::smallint from page
      on conflict (tenant_id, upstream_id, entity, own_id) do update
        set value_hash = excluded.value_hash, seen_in = excluded.seen_in
        where l.seen_in < excluded.seen_in
      returning 1
    )
    select (select count(*) from written)::integer as new_to_pass,
      (select new_to_all from counted)::integer as new_to_all`.execute(trx);
  const [row] = rows;
  return { newToPass: row?.new_to_pass ?? 0, newToAll: row?.new_to_all ?? 0 };
}
