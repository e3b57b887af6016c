import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { PushConfig } from "../platform/config/push-schema.ts";
import type { Database, PushPlatform, PushServiceName } from "../platform/schema.ts";

/** A push that one worker may send, until the lease is over. */
export interface ClaimedPush {
  claimId: string;
  clientId: string;
  /** Of the registration: what is learned of its address counts for this one only. */
  revision: string;
  platform: PushPlatform;
  address: string;
  pushId: string;
}

export interface ClaimOptions extends Pick<PushConfig, "delayMs" | "reminderMs" | "budget"> {
  service: PushServiceName;
  limit: number;
  leaseMs: number;
  codec: PayloadCodec;
}

export interface Claimed {
  pushes: ClaimedPush[];
  /** How many were looked at. Fewer than the limit: no more are due, or the service is paused. */
  looked: number;
  /** The service has failed, and this one push finds out whether it is back. */
  isProbe: boolean;
}

/**
 * Claims pushes that are due, after a look at what there is to read: a client that has read it meanwhile is left alone, one
 * whose budget is used up waits until it is not. What is claimed counts as sent in the budget; a claim that nobody settles
 * lapses, and the push is due again.
 *
 * A service that failed is asked by one push at a time, once its pause is over.
 */
export async function claimPushes(
  trx: Transaction<Database>,
  tenantId: string,
  options: ClaimOptions,
): Promise<Claimed> {
  const { service, leaseMs } = options;
  const none = { pushes: [], looked: 0, isProbe: false };
  const { limit, isProbe } = await roomAt(trx, tenantId, options);
  if (limit === 0) return none;
  // In a statement of its own: what the next one sees of the feed is then at least as new as what it sees of these.
  const { rows: due } = await sql<{ client_id: string }>`
    select client_id from push_registration
    where tenant_id = ${tenantId} and service = ${service} and due_at <= now()
    order by due_at limit ${limit} for update skip locked`.execute(trx);
  if (due.length === 0) return none;
  const clientIds = due.map(({ client_id }) => client_id);
  const { rows } = await judgeDue(tenantId, clientIds, options).execute(trx);
  const claimed = rows.filter(({ claim_id }) => claim_id !== null);
  if (isProbe && claimed.length > 0) await pause(trx, tenantId, service, leaseMs);
  return { pushes: claimed.map((row) => toPush(row, options.codec)), looked: due.length, isProbe };
}

async function roomAt(
  trx: Transaction<Database>,
  tenantId: string,
  { service, limit }: ClaimOptions,
): Promise<{ limit: number; isProbe: boolean }> {
  // Locked, so that two workers don't probe at once.
  const { rows } = await sql<{ is_paused: boolean; is_failing: boolean }>`
    select coalesce(paused_until > now(), false) as is_paused, failures > 0 as is_failing from push_service
    where tenant_id = ${tenantId} and service = ${service} and (failures > 0 or paused_until > now())
    for update`.execute(trx);
  const [state] = rows;
  if (state?.is_paused) return { limit: 0, isProbe: false };
  return state?.is_failing ? { limit: 1, isProbe: true } : { limit, isProbe: false };
}

async function pause(
  trx: Transaction<Database>,
  tenantId: string,
  service: PushServiceName,
  forMs: number,
): Promise<void> {
  await sql`
    update push_service set paused_until = now() + ${forMs} * interval '1 ms'
    where tenant_id = ${tenantId} and service = ${service}`.execute(trx);
}

interface JudgedRow {
  claim_id: string | null;
  client_id: string;
  revision: string;
  platform: PushPlatform;
  key_id: string;
  address: Buffer;
  push_id: string;
}

function toPush(row: JudgedRow, codec: PayloadCodec): ClaimedPush {
  return {
    claimId: row.claim_id ?? "",
    clientId: row.client_id,
    revision: row.revision,
    platform: row.platform,
    address: codec.decode(row.key_id, row.address),
    pushId: row.push_id,
  };
}

/**
 * Decides about clients that are due and locked:
 *
 *     nothing behind what it has read            idle; if it was wanted, after another look
 *     only what it was told, but may not have    a reminder, `reminderMs` after it was told
 *     something, but too young                   when it is old enough
 *     something that it was woken for            a reminder, `reminderMs` after it was woken; each time twice as long
 *     something                                  a push, as soon as the budget has one
 *
 * What comes to the feed after this look finds a client that is idle, by the next look through the feed: that waits for
 * the lock on the client's row. One that is wanted it passes over, hence the second look.
 */
export function judgeDue(
  tenantId: string,
  clientIds: readonly string[],
  { delayMs, reminderMs, budget, leaseMs }: ClaimOptions,
) {
  const reminder = sql`(${ms(reminderMs)} * (2 ^ least(r.pushes, ${doublingsMax}::smallint)))`;
  const afterPush = sql`(${ms(reminderMs)} * (2 ^ least(greatest(r.pushes - 1, 0), ${doublingsMax})))`;
  return sql<JudgedRow>`
    with looked as materialized (
      select r.*, news.latest, news.first_at,
        case r.platform when 'ios' then ${budget.ios}::integer when 'android' then ${budget.android}::integer
          else ${budget.other}::integer end as budget,
        array(select t from unnest(r.sent_at) as t where t > now() - interval '1 hour' order by t) as recent,
        ${reminder} as reminder, ${afterPush} as after_push
      from unnest(${clientIds}::uuid[]) as d (client_id)
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = d.client_id
      cross join lateral (
        select max(last.position) as latest, min(first.created_at) as first_at
        from (
          select 's:' || s as audience from unnest(r.scopes) as s union all select 'c:' || r.client_id
        ) a
        cross join lateral (
          select position from feed
          where tenant_id = ${tenantId} and audience = a.audience and position > r.read_position
          order by position desc limit 1
        ) last
        left join lateral (
          select created_at from feed
          where tenant_id = ${tenantId} and audience = a.audience and position > r.told_position
          order by position limit 1
        ) first on true
      ) news
    ), judged as materialized (
      select *, case
        when latest is null then null
        when first_at is null then told_at + reminder
        when pushed_at is not null then pushed_at + after_push
        when first_at > now() - ${ms(delayMs)} then first_at + ${ms(delayMs)}
        else now() end as at
      from looked
    ), decided as materialized (
      select *, coalesce(at <= now(), false) and cardinality(recent) < budget as is_claimed,
        coalesce(at <= now(), false) and cardinality(recent) >= budget as is_over
      from judged
    )
    update push_registration r set
      wanted_position = case when d.is_claimed or d.is_over then d.latest
        when d.latest is null or d.first_at is null then null else r.wanted_position end,
      pushed_at = case when d.is_claimed or d.is_over or d.first_at is not null then r.pushed_at end,
      push_id = case when d.is_claimed then coalesce(r.push_id, gen_random_uuid()) else r.push_id end,
      claim_id = case when d.is_claimed then gen_random_uuid() end,
      sent_at = case when d.is_claimed then d.recent || now() else r.sent_at end,
      due_at = case when d.is_claimed then now() + ${ms(leaseMs)}
        when d.is_over then d.recent[cardinality(d.recent) - d.budget + 1] + interval '1 hour'
        when r.wanted_position is not null and d.first_at is null then least(d.at, now() + ${ms(delayMs)})
        else d.at end
    from decided d
    where r.tenant_id = ${tenantId} and r.client_id = d.client_id
    returning r.claim_id, r.client_id, r.revision, r.platform, r.key_id, r.address, r.push_id`;
}

const doublingsMax = 5;

function ms(value: number) {
  return sql`${value} * interval '1 ms'`;
}
