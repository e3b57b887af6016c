import { sql, type Kysely, type Transaction } from "kysely";

import { inTenant, inTenantAtOnce } from "../platform/db.ts";
import { bigintArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";
import { recordKey, type RecordKey } from "../records/record.ts";
import { servedHere } from "./served-here.ts";

/** The claim of a lane on a record: nobody else writes it at the upstream meanwhile. */
export interface RecordClaim extends RecordKey {
  laneId: string;
  /** The lane's. */
  epoch: number;
}

export interface RecordClaimAsked extends RecordClaim {
  /** For what the record is claimed. */
  mutationId: string;
}

export type RecordClaimed =
  /** `feedPosition`: where the record stands, read under the claim; 0 for one that is not known. */
  | { kind: "ours"; feedPosition: number }
  /** Another lane has it, for a mutation. */
  | { kind: "busy"; mutationId: string }
  /** It was given back at this moment; or this is no longer the database that is served. */
  | { kind: "unknown" };

/**
 * Claims records of one tenant, each for one lane. A claim that a lane's owner before had is the lane's next owner's at
 * once; another lane's when its lease is over on the database's clock, or its lane has another owner by now: that one may
 * never ask for it.
 *
 * The result is in the order of `asked`. Rows are locked in the order of their keys, as in every statement here.
 */
export async function claimRecords(
  db: Kysely<Database>,
  tenantId: string,
  asked: readonly RecordClaimAsked[],
  leaseMs: number,
): Promise<RecordClaimed[]> {
  const first = [...new Map(asked.toReversed().map((claim) => [recordKey(claim), claim])).values()];
  const rows = await inTenantAtOnce(db, tenantId, async (trx) => {
    const [, claims] = await Promise.all([
      insertClaims(trx, tenantId, first, leaseMs),
      readClaims(trx, tenantId, first),
    ]);
    return claims;
  });
  const found = new Map(rows.map((row) => [recordKey({ entity: row.entity, serverId: row.server_id }), row]));
  return asked.map((claim): RecordClaimed => {
    const row = found.get(recordKey(claim));
    if (!row) return { kind: "unknown" };
    const isOurs = row.lane_id === claim.laneId && Number(row.epoch) === claim.epoch;
    return isOurs
      ? { kind: "ours", feedPosition: Number(row.feed_position ?? 0) }
      : { kind: "busy", mutationId: row.mutation_id };
  });
}

async function insertClaims(
  trx: Transaction<Database>,
  tenantId: string,
  claims: readonly RecordClaimAsked[],
  leaseMs: number,
): Promise<void> {
  await sql`
    insert into record_claim (tenant_id, entity, server_id, lane_id, epoch, mutation_id, lease_until)
    select ${tenantId}, c.entity, c.server_id, c.lane_id, c.epoch, c.mutation_id,
      clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
    from unnest(${textArray(claims.map(({ entity }) => entity))}::text[],
      ${textArray(claims.map(({ serverId }) => serverId))}::text[],
      ${textArray(claims.map(({ laneId }) => laneId))}::text[],
      ${bigintArray(claims.map(({ epoch }) => epoch))}::bigint[],
      ${uuidArray(claims.map(({ mutationId }) => mutationId))}::uuid[])
      as c (entity, server_id, lane_id, epoch, mutation_id)
    where ${servedHere}
    order by c.entity, c.server_id
    on conflict (tenant_id, entity, server_id) do update set lane_id = excluded.lane_id, epoch = excluded.epoch,
      mutation_id = excluded.mutation_id, lease_until = excluded.lease_until
    where (record_claim.lane_id = excluded.lane_id and record_claim.epoch <= excluded.epoch)
      or record_claim.lease_until <= clock_timestamp()
      or exists (
        select 1 from lane l
        where l.tenant_id = ${tenantId} and l.lane_id = record_claim.lane_id and l.epoch > record_claim.epoch
      )`.execute(trx);
}

interface ClaimRow {
  entity: string;
  server_id: string;
  lane_id: string;
  epoch: string;
  mutation_id: string;
  feed_position: string | null;
}

/** A statement of its own: it sees what was committed while the claims were waited for. */
async function readClaims(
  trx: Transaction<Database>,
  tenantId: string,
  keys: readonly RecordKey[],
): Promise<ClaimRow[]> {
  const { rows } = await sql<ClaimRow>`
    select c.entity, c.server_id, c.lane_id, c.epoch, c.mutation_id, r.feed_position
    from unnest(${textArray(keys.map(({ entity }) => entity))}::text[],
      ${textArray(keys.map(({ serverId }) => serverId))}::text[]) as key (entity, server_id)
    join record_claim c on c.tenant_id = ${tenantId} and c.entity = key.entity and c.server_id = key.server_id
    left join record r on r.tenant_id = ${tenantId} and r.entity = key.entity and r.server_id = key.server_id`.execute(
    trx,
  );
  return rows;
}

/** Prolongs claims. Resolves with the lanes whose claims are still theirs. */
export async function renewRecordClaims(
  db: Kysely<Database>,
  tenantId: string,
  claims: readonly RecordClaim[],
  leaseMs: number,
): Promise<Set<string>> {
  const rows = await inTenant(
    db,
    tenantId,
    async (trx) =>
      (
        await sql<{ lane_id: string }>`
          with ours as (${heldRows(tenantId, claims)})
          update record_claim set lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
          from ours
          where record_claim.tenant_id = ${tenantId} and record_claim.entity = ours.entity
            and record_claim.server_id = ours.server_id
          returning record_claim.lane_id`.execute(trx)
      ).rows,
  );
  return new Set(rows.map((row) => row.lane_id));
}

/** Gives claims back, as far as they are still their lanes'. */
export async function releaseRecords(
  trx: Transaction<Database>,
  tenantId: string,
  claims: readonly RecordClaim[],
): Promise<void> {
  if (claims.length === 0) return;
  await sql`
    with ours as (${heldRows(tenantId, claims)})
    delete from record_claim using ours
    where record_claim.tenant_id = ${tenantId} and record_claim.entity = ours.entity
      and record_claim.server_id = ours.server_id`.execute(trx);
}

function heldRows(tenantId: string, claims: readonly RecordClaim[]) {
  return sql`
    select c.entity, c.server_id from record_claim c
    join unnest(${textArray(claims.map(({ entity }) => entity))}::text[],
      ${textArray(claims.map(({ serverId }) => serverId))}::text[],
      ${textArray(claims.map(({ laneId }) => laneId))}::text[],
      ${bigintArray(claims.map(({ epoch }) => epoch))}::bigint[]) as held (entity, server_id, lane_id, epoch)
      on c.entity = held.entity and c.server_id = held.server_id and c.lane_id = held.lane_id
        and c.epoch = held.epoch
    where c.tenant_id = ${tenantId}
    order by c.entity, c.server_id for update of c`;
}
