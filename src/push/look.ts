import { sql, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/** At most so many positions of the feed are looked through, and clients found, in one transaction. */
const lookMax = { positions: 2_000, clients: 2_000 };

/** After an epoch has begun, all clients are due within this time. */
const epochSpreadMs = 60_000;

/**
 * Looks through what the feed has got since the last look, and finds the clients that it is new to. What is younger than
 * `delayMs` is left to a later look, so that a client that follows the feed reads it by itself. Clients that are known to
 * be wanted are passed over: what changes meanwhile costs them nothing.
 *
 * One look at a tenant at a time; another one finds nothing.
 *
 * @returns whether there is more to look through at once.
 */
export async function lookForNews(
  trx: Transaction<Database>,
  tenantId: string,
  { delayMs }: { delayMs: number },
): Promise<boolean> {
  const place = await lockPlace(trx, tenantId);
  if (!place) return false;
  if (place.isOfAnotherEpoch) await beginEpoch(trx, tenantId);
  const { position: after, head, isOfAnotherEpoch } = place;
  if (isOfAnotherEpoch || after >= head) return false;
  const until = Math.min(head, after + lookMax.positions);
  const { rows } = await markWanted(tenantId, { after, until, delayMs }).execute(trx);
  const [found] = rows;
  if (!found) return false;
  // Those that were found are passed over by the next look through the same rows.
  if (found.clients >= lookMax.clients) return true;
  await sql`update push_look set position = ${found.reached} where tenant_id = ${tenantId}`.execute(trx);
  return Number(found.reached) === until && until < head;
}

interface Place {
  /** Everything up to here was looked through. */
  position: number;
  head: number;
  isOfAnotherEpoch: boolean;
}

async function lockPlace(trx: Transaction<Database>, tenantId: string): Promise<Place | undefined> {
  const ask = sql<{ position: string; head: string; is_other: boolean }>`
    select l.position, coalesce(h.position, 0) as head, l.epoch <> i.epoch as is_other
    from push_look l cross join installation i left join feed_head h on h.tenant_id = ${tenantId}
    where l.tenant_id = ${tenantId} for update of l skip locked`;
  const { rows } = await ask.execute(trx);
  const [row] = rows;
  if (row) return { position: Number(row.position), head: Number(row.head), isOfAnotherEpoch: row.is_other };
  // The first look begins at the head: whoever has registered by then is looked at by itself.
  await sql`
    insert into push_look (tenant_id, position, epoch)
    select ${tenantId}, coalesce(h.position, 0), i.epoch
    from installation i left join feed_head h on h.tenant_id = ${tenantId}
    where not exists (select from push_look where tenant_id = ${tenantId})
    on conflict do nothing`.execute(trx);
  return undefined;
}

/** Positions of an earlier epoch mean nothing: every client has everything to read, and learns so by a push. */
async function beginEpoch(trx: Transaction<Database>, tenantId: string): Promise<void> {
  await sql`
    with other as materialized (
      select r.client_id, i.epoch from installation i
      join push_registration r on r.tenant_id = ${tenantId} and r.epoch <> i.epoch
      order by r.client_id for update of r
    )
    update push_registration r set epoch = o.epoch, read_position = 0, told_position = 0, told_at = now(),
      wanted_position = null, push_id = null, pushed_at = null, pushes = 0, failures = 0, claim_id = null,
      due_at = now() + random() * ${epochSpreadMs} * interval '1 ms'
    from other o where r.tenant_id = ${tenantId} and r.client_id = o.client_id`.execute(trx);
  await sql`
    update push_look l set epoch = i.epoch, position = coalesce(h.position, 0)
    from installation i left join feed_head h on h.tenant_id = ${tenantId}
    where l.tenant_id = ${tenantId}`.execute(trx);
}

/** Up to the first row that is too young. */
export function markWanted(
  tenantId: string,
  { after, until, delayMs }: { after: number; until: number; delayMs: number },
) {
  return sql<{ reached: string; clients: number }>`
    with fresh as materialized (
      select position, audience, created_at from feed
      where tenant_id = ${tenantId} and position > ${after} and position <= ${until}
    ), reach as materialized (
      select coalesce(
        min(position) filter (where created_at > now() - ${delayMs} * interval '1 ms') - 1, ${until}::bigint
      ) as position
      from fresh
    ), changed as materialized (
      select f.audience, max(f.position) as position
      from fresh f cross join reach where f.position <= reach.position group by f.audience
    ), concerned as materialized (
      select r.client_id, c.position
      from changed c
      join push_audience a on a.tenant_id = ${tenantId} and a.audience = c.audience
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = a.client_id
      where r.wanted_position is null and r.told_position < c.position
      limit ${lookMax.clients}
    ), locked as materialized (
      select r.client_id, w.position
      from (select client_id, max(position) as position from concerned group by client_id) w
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = w.client_id
      order by r.client_id for update of r
    ), marked as (
      update push_registration r set wanted_position = w.position, due_at = now()
      from locked w
      where r.tenant_id = ${tenantId} and r.client_id = w.client_id
        and r.wanted_position is null and r.told_position < w.position
    )
    select reach.position as reached, (select count(*) from concerned)::integer as clients
    from reach`;
}
