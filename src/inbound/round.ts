import { sql, type Kysely, type Transaction } from "kysely";

import { readHead } from "../change-feed/head.ts";
import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { holdClaim, type InboundClaim } from "./claim.ts";

/** One going through an entity's records: of those that have changed, or of all. */
export interface Round {
  entity: string;
  kind: "poll" | "sweep";
  /** The page to read next; undefined for the first. */
  nextPage: string | undefined;
  isListed: boolean;
  /** Up to here changes were asked for before. */
  changedUntil: Date | undefined;
  /** Where the upstream, which keeps track, is asked for what has changed since. */
  changesPlace: string | undefined;
  /** In a row. */
  failures: number;
}

interface RoundRow {
  entity: string;
  round: "poll" | "sweep" | null;
  sweep_is_due: boolean;
  next_page: string | null;
  is_listed: boolean;
  changed_until: Date | null;
  changes_place: string | null;
  failures: number;
}

/**
 * The round that is under way, or else one that is due, begun.
 *
 * @param pollable which entities can be asked for what has changed since a time.
 * @param tracked those of which the upstream may keep track, so that it can be asked for what has changed. Of entities of
 * neither kind everything is read each time.
 */
export async function takeRound(
  db: Kysely<Database>,
  claim: InboundClaim,
  {
    entities,
    pollable,
    tracked,
    leaseMs,
  }: {
    entities: readonly string[];
    pollable: ReadonlySet<string>;
    tracked: ReadonlySet<string>;
    leaseMs: number;
  },
): Promise<Round | undefined> {
  const { tenantId, upstreamId } = claim;
  return await inTenant(db, tenantId, async (trx) => {
    await holdClaim(trx, claim, leaseMs);
    const { rows } = await sql<RoundRow>`
      select e.entity, e.round, e.next_page, e.is_listed, e.changed_until, e.changes_place, e.failures,
        e.sweep_due_at <= now() or e.swept_at is null or e.swept_at < i.recovered_at as sweep_is_due
      from inbound_entity e cross join installation i
      where e.tenant_id = ${tenantId} and e.upstream_id = ${upstreamId} and e.entity = any(${entities}::text[])
        and least(e.poll_due_at, e.sweep_due_at) <= now()
      order by e.round is null, least(e.poll_due_at, e.sweep_due_at) limit 1`.execute(trx);
    const [row] = rows;
    if (!row) return undefined;
    const changesPlace = tracked.has(row.entity) ? (row.changes_place ?? undefined) : undefined;
    const canPoll = changesPlace !== undefined || pollable.has(row.entity);
    const kind = row.round ?? (row.sweep_is_due || !canPoll ? "sweep" : "poll");
    if (row.round === null) await begin(trx, claim, row.entity, kind);
    return {
      entity: row.entity,
      kind,
      nextPage: row.next_page ?? undefined,
      isListed: row.is_listed,
      changedUntil: row.changed_until ?? undefined,
      changesPlace,
      failures: row.failures,
    };
  });
}

async function begin(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: InboundClaim,
  entity: string,
  kind: Round["kind"],
): Promise<void> {
  const { position } = await readHead(trx, tenantId);
  await Promise.all([
    sql`delete from inbound_seen
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx),
    sql`update inbound_entity set round = ${kind}, round_began_at = now(), round_position = ${position},
        round_changed_until = null, next_page = null, is_listed = false
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx),
  ]);
}

/**
 * Keeps how far a round has come. A page on which there is nothing that the round has not seen is its last: some servers
 * answer the same page for ever. A list of changes that ends so is not believed to be whole: a sweep follows.
 *
 * @param page.changesPlace where to ask for what changes after this round, if this page has told.
 */
export async function keepPage(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: InboundClaim,
  { entity, kind, changesPlace }: Round,
  page: {
    serverIds: readonly string[];
    next: string | undefined;
    changedUntil: Date | undefined;
    changesPlace: string | undefined;
  },
): Promise<void> {
  const isOfChanges = kind === "poll" && changesPlace !== undefined;
  await sql`
    with found as (
      insert into inbound_seen (tenant_id, upstream_id, entity, server_id)
      select ${tenantId}, ${upstreamId}, ${entity}, id from unnest(${page.serverIds}::text[]) as s (id)
      on conflict do nothing returning 1
    ), more as (
      select case when is_new then asked end as next_page, ${isOfChanges} and asked is not null and not is_new as is_cut
      from (select ${page.next ?? null}::text as asked, exists (select from found) as is_new) page
    )
    update inbound_entity e set next_page = more.next_page, is_listed = more.next_page is null, failures = 0,
      round_changed_until = greatest(e.round_changed_until, ${page.changedUntil ?? null}::timestamptz),
      changes_place = case when not is_cut then coalesce(${page.changesPlace ?? null}::text, e.changes_place) end,
      sweep_due_at = case when is_cut then now() else e.sweep_due_at end
    from more
    where e.tenant_id = ${tenantId} and e.upstream_id = ${upstreamId} and e.entity = ${entity}`.execute(trx);
}

export interface Concluded {
  /** Records that a sweep did not find; each of them is to be read. */
  missing: number;
  /** There were so many that it is the list that is in doubt; none of them is looked at. */
  isDoubtful: boolean;
}

/** So few missing records are looked at, whatever share they are. */
const fewMissing = 10;

/** Ends a round: what a sweep did not find is looked at, one by one, since a list alone proves no deletion. */
export async function concludeRound(
  db: Kysely<Database>,
  claim: InboundClaim,
  { entity, kind }: Round,
  pace: {
    leaseMs: number;
    everyMs: number;
    sweepEveryMs: number;
    missingShareMax: number;
    tellsTime: boolean;
  },
): Promise<Concluded> {
  const { tenantId, upstreamId } = claim;
  return await inTenant(db, tenantId, async (trx) => {
    await holdClaim(trx, claim, pace.leaseMs);
    const isSweep = kind === "sweep";
    const concluded = isSweep
      ? await lookAtMissing(trx, claim, entity, pace.missingShareMax)
      : { missing: 0, isDoubtful: false };
    await sql`
      update inbound_entity set round = null, next_page = null, is_listed = false, failures = 0,
        changed_until = greatest(changed_until, case when ${pace.tellsTime}
          then least(round_changed_until, round_began_at) else round_began_at end),
        swept_at = case when ${isSweep} then round_began_at else swept_at end,
        poll_due_at = now() + ${spread(pace.everyMs)}::bigint * interval '1 millisecond',
        sweep_due_at = case when ${isSweep}
          then now() + ${spread(pace.sweepEveryMs)}::bigint * interval '1 millisecond' else sweep_due_at end
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx);
    await sql`delete from inbound_seen
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx);
    return concluded;
  });
}

/** Not all tenants at the same moment. */
function spread(ms: number): number {
  return Math.ceil(ms * (0.9 + 0.2 * Math.random()));
}

async function lookAtMissing(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: InboundClaim,
  entity: string,
  shareMax: number,
): Promise<Concluded> {
  const { rows } = await sql<{ missing: number; known: number; looks: number }>`
    with known as materialized (
      select r.server_id, not exists (
        select from inbound_seen s where s.tenant_id = ${tenantId} and s.upstream_id = ${upstreamId}
          and s.entity = ${entity} and s.server_id = r.server_id) as is_missing
      from record r join inbound_entity e on e.tenant_id = ${tenantId} and e.upstream_id = ${upstreamId}
        and e.entity = ${entity}
      where r.tenant_id = ${tenantId} and r.entity = ${entity} and not r.deleted
        and r.feed_position <= e.round_position
    ), counted as (
      select count(*) filter (where is_missing)::integer as missing, count(*)::integer as known from known
    ), looks as (
      insert into inbound_look (tenant_id, upstream_id, entity, server_id)
      select ${tenantId}, ${upstreamId}, ${entity}, k.server_id from known k cross join counted c
      where k.is_missing and (c.missing <= ${fewMissing} or c.missing <= c.known * ${shareMax}::float8)
      order by k.server_id
      on conflict (tenant_id, upstream_id, entity, server_id) do update set asked = inbound_look.asked + 1
      returning 1
    )
    select missing, known, (select count(*)::integer from looks) as looks from counted`.execute(trx);
  const { missing = 0, looks = 0 } = rows[0] ?? {};
  return { missing, isDoubtful: looks < missing };
}

/**
 * A round that failed goes on later; anew when its place in the list may be what the upstream does not take, and by a sweep
 * when that is the place where it keeps track of changes.
 */
export async function putOffRound(
  db: Kysely<Database>,
  claim: InboundClaim,
  { entity }: Round,
  { inMs, isAnew, isLost, leaseMs }: { inMs: number; isAnew: boolean; isLost: boolean; leaseMs: number },
): Promise<void> {
  const { tenantId, upstreamId } = claim;
  await inTenant(db, tenantId, async (trx) => {
    await holdClaim(trx, claim, leaseMs);
    await sql`
      update inbound_entity set failures = failures + 1, round = case when not ${isAnew || isLost} then round end,
        changes_place = case when not ${isLost} then changes_place end,
        poll_due_at = greatest(poll_due_at, now() + ${Math.ceil(inMs)}::bigint * interval '1 millisecond'),
        sweep_due_at = greatest(case when ${isLost} then now() else sweep_due_at end,
          now() + ${Math.ceil(inMs)}::bigint * interval '1 millisecond')
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}`.execute(trx);
  });
}
