import { sql, type Kysely, type RawBuilder, type Transaction } from "kysely";

import { inTenant } from "../../platform/db.ts";
import { hexArray } from "../../platform/pg-arrays.ts";
import type { Database } from "../../platform/schema.ts";
import type { RecordKey } from "../../records/record.ts";
import type { Claim } from "../claim.ts";
import { servedHere } from "../served-here.ts";
import { secretId, valueHash } from "./match-value.ts";
import { isOwnIdTaken, pairedOnly, writeShadowRecords } from "./records.ts";

/** A record that the shadow held before it was added. */
export interface Partner {
  ownId: string;
  /** The server ID of the record that it is paired with. */
  takenBy: string | null;
}

export interface Asked {
  entity: string;
  pointer: string;
  value: string;
}

/** What a shadow held before it was added, for the lanes that follow. */
export interface Partners {
  /**
   * The records that were listed with this value, as many as a person would look through. Undefined when the list says
   * nothing about it: it is one of another field, or under a secret that is not known.
   */
  find: (asked: Asked) => Promise<Partner[] | undefined>;
  /**
   * Pairs a record with one of these, once and for all: then the shadow has it under this ID. `taken`: another record has
   * it; `lost`: the lane is not the claim's any more. Nothing was written then.
   */
  take: (
    claim: Claim,
    key: RecordKey,
    own: { ownId: string; version: string | undefined },
  ) => Promise<"paired" | "taken" | "lost">;
}

export const partnersMax = 10;

export function createPartners(
  db: Kysely<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  secrets: readonly string[],
): Partners {
  return {
    async find({ entity, pointer, value }) {
      const hashes = secrets.map((secret) => ({
        id: secretId(secret),
        hash: valueHash(secret, { tenantId, upstreamId, entity }, value),
      }));
      const { rows } = await inTenant(db, tenantId, (trx) =>
        partnersSql({ tenantId, upstreamId, entity, hashes }).execute(trx),
      );
      // An entity that had no `match` when the shadow was added has no list.
      const [first] = rows;
      if (first && (first.pointer !== pointer || !first.is_known)) return undefined;
      return rows.flatMap(({ own_id, taken_by }) =>
        own_id === null ? [] : [{ ownId: own_id, takenBy: taken_by }],
      );
    },
    async take(claim, key, own) {
      try {
        return await inTenant(db, tenantId, (trx) => takeIn(trx, { tenantId, upstreamId }, claim, key, own));
      } catch (error) {
        if (isOwnIdTaken(error)) return "taken";
        throw error;
      }
    },
  };
}

async function takeIn(
  trx: Transaction<Database>,
  { tenantId, upstreamId }: { tenantId: string; upstreamId: string },
  { laneId, epoch }: Claim,
  key: RecordKey,
  { ownId, version }: { ownId: string; version: string | undefined },
): Promise<"paired" | "taken" | "lost"> {
  const lane = await sql`
    select 1 from lane
    where tenant_id = ${tenantId} and lane_id = ${laneId} and epoch = ${epoch} and lease_until is not null
      and ${servedHere}
    for update`.execute(trx);
  if (lane.rows.length === 0) return "lost";
  const taken = await sql`
    update shadow_listed set taken_by = ${key.serverId}
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${key.entity} and own_id = ${ownId}
      and (taken_by is null or taken_by = ${key.serverId})
    returning 1`.execute(trx);
  if (taken.rows.length === 0) return "taken";
  const paired = { ...key, upstreamId, ownId, deleted: false, isIncomplete: false };
  await writeShadowRecords(trx, tenantId, [
    { ...paired, version: version ?? null, reached: pairedOnly, mayBeListed: false },
  ]);
  return "paired";
}

interface PartnerRow {
  pointer: string;
  is_known: boolean;
  own_id: string | null;
  taken_by: string | null;
}

/** One row at least for an entity that was listed. */
export function partnersSql({
  tenantId,
  upstreamId,
  entity,
  hashes,
}: {
  tenantId: string;
  upstreamId: string;
  entity: string;
  /** Of the value, by secret. */
  hashes: { id: string; hash: string }[];
}): RawBuilder<PartnerRow> {
  return sql<PartnerRow>`
    select g.pointer, known.hash is not null as is_known, l.own_id, l.taken_by
    from shadow_listing g
    left join unnest(${hashes.map(({ id }) => id)}::text[], ${hexArray(hashes.map(({ hash }) => hash))}::bytea[])
      as known (secret_id, hash) on known.secret_id = g.secret_id
    left join lateral (
      select own_id, taken_by from shadow_listed
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and entity = ${entity}
        and value_hash = known.hash
      limit ${partnersMax + 1}
    ) l on true
    where g.tenant_id = ${tenantId} and g.upstream_id = ${upstreamId} and g.entity = ${entity}`;
}
