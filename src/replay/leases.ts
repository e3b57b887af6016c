import { sql, type Kysely } from "kysely";

import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import type { Claim } from "./claim.ts";
import { servedHere } from "./served-here.ts";

/** What tells an owner from whoever has the lane after it. */
type Owned = Pick<Claim, "laneId" | "epoch">;

/**
 * Prolongs leases. Resolves with the lanes that are still ours: the owner of any other stops at once and writes nothing.
 */
export async function renewLeases(
  db: Kysely<Database>,
  tenantId: string,
  lanes: Owned[],
  leaseMs: number,
): Promise<Set<string>> {
  const { rows } = await inTenant(db, tenantId, (trx) =>
    sql<{ lane_id: string }>`
      with ours as (
        select l.lane_id
        from unnest(${lanes.map(({ laneId }) => laneId)}::text[], ${lanes.map(({ epoch }) => epoch)}::bigint[])
          as owned (lane_id, epoch)
        join lane l on l.tenant_id = ${tenantId} and l.lane_id = owned.lane_id and l.epoch = owned.epoch
          and l.lease_until is not null
        where ${servedHere}
        order by l.lane_id for update of l
      )
      update lane set lease_until = clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond'
      from ours where lane.tenant_id = ${tenantId} and lane.lane_id = ours.lane_id
      returning lane.lane_id`.execute(trx),
  );
  return new Set(rows.map((row) => row.lane_id));
}

/**
 * Gives up a lane after a failure that left its head unclear: it is due after a time, and whoever claims it then takes
 * it over.
 */
export async function abandonLane(
  db: Kysely<Database>,
  { tenantId, laneId, epoch }: Owned & Pick<Claim, "tenantId">,
  dueInMs: number,
): Promise<void> {
  await inTenant(db, tenantId, (trx) =>
    sql`
      update lane set failures = failures + 1, owner = null, lease_until = clock_timestamp(),
        due_at = case when look_again then clock_timestamp()
          else clock_timestamp() + ${dueInMs}::integer * interval '1 millisecond' end
      where tenant_id = ${tenantId} and lane_id = ${laneId} and epoch = ${epoch} and lease_until is not null`.execute(
      trx,
    ),
  );
}
