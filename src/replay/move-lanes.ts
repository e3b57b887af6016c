import { sql, type RawBuilder, type Transaction } from "kysely";

import { bigintArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";
import { servedHere } from "./served-here.ts";
import { hasMoreToFollow } from "./shadows/log.ts";

/** Where a lane stands after a commit of its owner. */
export interface LaneMove {
  laneId: string;
  epoch: number;
  /** Everything up to here has been passed. */
  position: number;
  /** Failures in a row of what is now at the head. */
  failures: number;
  release?: Release | undefined;
}

/**
 * Gives the lane back: `done` when the slice is over (due again at once if the log goes on), `aside` until the upstream
 * takes calls again, `stuck` until somebody wakes it, or due after a time; at once, when the mutation that it waits for has ended by then.
 */
export type Release = "done" | "aside" | "stuck" | { dueInMs: number; waitsFor?: string };

/** A lane as its owner's commit finds it. */
export interface LaneState {
  position: number;
  tail: number;
  isReleased: boolean;
}

/** The lanes among them that nobody has claimed since. */
export async function lockLanes(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneMove[],
): Promise<Map<string, LaneState>> {
  const { rows } = await sql<{ lane_id: string; position: string; tail: string; is_released: boolean }>`
    select l.lane_id, l.position, l.tail, l.lease_until is null as is_released
    from unnest(${textArray(commits.map(({ laneId }) => laneId))}::text[],
      ${bigintArray(commits.map(({ epoch }) => epoch))}::bigint[])
      as owned (lane_id, epoch)
    join lane l on l.tenant_id = ${tenantId} and l.lane_id = owned.lane_id and l.epoch = owned.epoch
    where ${servedHere}
    order by l.lane_id for update of l`.execute(trx);
  return new Map(
    rows.map((row) => [
      row.lane_id,
      { position: Number(row.position), tail: Number(row.tail), isReleased: row.is_released },
    ]),
  );
}

/** Moves the lanes, and releases some. Resolves with when these are due. */
export async function moveLanes(
  trx: Transaction<Database>,
  tenantId: string,
  commits: LaneMove[],
  leaseMs: number,
): Promise<Map<string, number | undefined>> {
  const moves = commits.map(({ laneId, position, failures, release = "keep" }) => ({
    laneId,
    position,
    failures,
    ...(typeof release === "object"
      ? { release: "later", dueInMs: Math.ceil(release.dueInMs), waitsFor: release.waitsFor ?? null }
      : { release, dueInMs: 0, waitsFor: null }),
  }));
  const waits = moves.flatMap(({ waitsFor }) => waitsFor ?? []);
  const dueLater = sql`clock_timestamp() + moved.due_in_ms * interval '1 millisecond'`;
  const { rows } = await sql<{ lane_id: string; due_in_ms: number | null }>`
    update lane set position = moved.position, failures = moved.failures,
      owner = case when moved.release = 'keep' then lane.owner end,
      lease_until = case when moved.release = 'keep'
        then clock_timestamp() + ${leaseMs}::integer * interval '1 millisecond' end,
      aside = moved.release = 'aside' and not lane.look_again,
      due_at = case
        when lane.look_again and moved.release <> 'keep' then clock_timestamp()
        when moved.release in ('keep', 'aside') then lane.due_at
        when moved.release = 'done' then case
          when case when lane.partition is null then lane.tail > moved.position
            else ${hasMoreToFollow(sql`moved.position`)} end
          then clock_timestamp() end
        when moved.release = 'later' then ${waits.length === 0 ? dueLater : dueWhenEnded(tenantId, waits, dueLater)}
      end
    from unnest(
      ${textArray(moves.map(({ laneId }) => laneId))}::text[],
      ${bigintArray(moves.map(({ position }) => position))}::bigint[],
      ${bigintArray(moves.map(({ failures }) => failures))}::bigint[],
      ${textArray(moves.map(({ release }) => release))}::text[],
      ${bigintArray(moves.map(({ dueInMs }) => dueInMs))}::bigint[],
      ${uuidArray(moves.map(({ waitsFor }) => waitsFor))}::uuid[])
      as moved (lane_id, position, failures, release, due_in_ms, waits_for)
    where lane.tenant_id = ${tenantId} and lane.lane_id = moved.lane_id
    returning lane.lane_id, case when not lane.aside
      then extract(epoch from lane.due_at - clock_timestamp())::float8 * 1000 end as due_in_ms`.execute(trx);
  return new Map(
    rows.map(({ lane_id: laneId, due_in_ms: dueInMs }) => [
      laneId,
      dueInMs === null ? undefined : Math.max(0, dueInMs),
    ]),
  );
}

/**
 * When a lane is due that waits for one of `ids`: at once, if that has ended or is just about to. Those that have not are
 * locked until we commit, so that their owner ends them only after it can see who waits.
 */
function dueWhenEnded(tenantId: string, ids: string[], later: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`case
    when moved.waits_for is null or moved.waits_for in (
      select mutation_id from mutation_key
      where tenant_id = ${tenantId} and mutation_id = any(${uuidArray(ids)}::uuid[]) and status is null
      for share skip locked
    ) then ${later}
    else clock_timestamp()
  end`;
}
