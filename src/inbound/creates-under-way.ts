import { sql, type Transaction } from "kysely";

import type { Database } from "../platform/schema.ts";

/** A create that has no outcome yet. */
export interface OpenCreate {
  entity: string;
  clientId: string;
  /** The record that was made known under its temp ID. */
  adopted: string | undefined;
}

/** Of temp IDs (bare UUIDs), those whose create has no outcome yet. */
export async function readOpenCreates(
  trx: Transaction<Database>,
  tenantId: string,
  tempIds: readonly string[],
): Promise<Map<string, OpenCreate>> {
  if (tempIds.length === 0) return new Map();
  const { rows } = await sql<{
    temp_id: string;
    entity: string;
    client_id: string;
    server_id: string | null;
  }>`
    select k.temp_id, k.entity, k.client_id, a.server_id
    from mutation_key k
    left join inbound_adopted a on a.tenant_id = ${tenantId} and a.temp_id = k.temp_id
    where k.tenant_id = ${tenantId} and k.temp_id = any(${tempIds}::uuid[]) and k.status is null
    order by k.accepted_at desc`.execute(trx);
  return new Map(
    rows.map((row) => [
      row.temp_id,
      { entity: row.entity, clientId: row.client_id, adopted: row.server_id ?? undefined },
    ]),
  );
}

/** More than are in hand anywhere. */
const lanesMax = 4_096;

/**
 * For how long yet creates of these entities may be under way, in milliseconds, by entity: as long as the leases of the
 * lanes whose head, or whose released or retried mutation, is one. Entities of which none is under way are left out.
 */
export async function readCreatesUnderWay(
  trx: Transaction<Database>,
  tenantId: string,
  entities: readonly string[],
): Promise<Map<string, number>> {
  if (entities.length === 0) return new Map();
  const { rows } = await sql<{ entity: string; for_ms: number }>`
    with leased as materialized (
      select lane_id::uuid as client_id, position, lease_until from lane
      where tenant_id = ${tenantId} and partition is null and not aside and due_at <= now()
        and lease_until > now()
      order by due_at limit ${lanesMax}
    )
    select k.entity, max(extract(epoch from k.lease_until - now()))::float8 * 1000 as for_ms from (
      select head.entity, head.temp_id, leased.lease_until from leased cross join lateral (
        select ids from inbox_block
        where tenant_id = ${tenantId} and client_id = leased.client_id and last_seq > leased.position
        order by last_seq limit 1
      ) block cross join lateral (
        select key.entity, key.temp_id from unnest(block.ids) with ordinality as i (mutation_id, ordinal)
        join mutation_key key on key.tenant_id = ${tenantId} and key.mutation_id = i.mutation_id
        where key.seq > leased.position and key.status is null
        order by i.ordinal limit 1
      ) head
      union all
      select key.entity, key.temp_id, leased.lease_until from leased
      join delivery d on d.tenant_id = ${tenantId} and d.client_id = leased.client_id
      join mutation_key key on key.tenant_id = ${tenantId} and key.mutation_id = d.mutation_id
    ) k
    where k.temp_id is not null and k.entity = any(${entities}::text[])
    group by k.entity`.execute(trx);
  return new Map(rows.map((row) => [row.entity, row.for_ms]));
}

/** Keeps which records were made known under the temp IDs of open creates, and forgets those of creates that have ended. */
export async function writeAdopted(
  trx: Transaction<Database>,
  tenantId: string,
  adopted: readonly { tempId: string; entity: string; serverId: string }[],
): Promise<void> {
  if (adopted.length === 0) return;
  await Promise.all([
    forgetEnded(trx, tenantId),
    sql`
      insert into inbound_adopted (tenant_id, temp_id, entity, server_id)
      select ${tenantId}, a.* from unnest(${adopted.map(({ tempId }) => tempId)}::uuid[],
        ${adopted.map(({ entity }) => entity)}::text[], ${adopted.map(({ serverId }) => serverId)}::text[]) as a
      on conflict do nothing`.execute(trx),
  ]);
}

/** Those that somebody else is just about to forget are left to them. */
async function forgetEnded(trx: Transaction<Database>, tenantId: string): Promise<void> {
  await sql`
    delete from inbound_adopted where tenant_id = ${tenantId} and temp_id in (
      select a.temp_id from inbound_adopted a
      where a.tenant_id = ${tenantId} and not exists (
        select 1 from mutation_key k
        where k.tenant_id = ${tenantId} and k.temp_id = a.temp_id and k.status is null
      )
      for update skip locked
    )`.execute(trx);
}
