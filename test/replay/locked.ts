import { Client } from "pg";
import { expect, onTestFinished } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import type { TestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "./rows.ts";

const waiting =
  "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/** Runs `start` while the lane's row is locked; `queued` waits until so many others stand in line for it. */
export async function whileLocked(
  { database }: TestGateway,
  laneId: string,
  start: (queued: (count: number) => Promise<void>) => Promise<Promise<unknown>[]>,
): Promise<void> {
  const holder = new Client({ connectionString: database.superuserUrl });
  await holder.connect();
  try {
    await holder.query("set search_path to tidegate");
    await holder.query("begin");
    await holder.query("select 1 from lane where lane_id = $1 for update", [laneId]);
    const started = await start(async (count) => {
      await expect
        .poll(async () => (await rowsOf(database, waiting)).length, { timeout: 20_000 })
        .toBe(count);
    });
    await holder.query("commit");
    await Promise.all(started);
  } finally {
    await holder.end();
  }
}

/** A transaction of somebody else's that has run a statement; `queued` waits until so many stand in line for a lock. */
export async function holding(
  database: TestDatabase,
  statement: string,
): Promise<{ holder: Client; queued: (count: number) => Promise<void> }> {
  const holder = new Client({ connectionString: database.superuserUrl });
  await holder.connect();
  onTestFinished(async () => await holder.end());
  await holder.query("set search_path to tidegate");
  await holder.query("begin");
  await holder.query(statement);
  const queued = async (count: number): Promise<void> =>
    await expect.poll(async () => await rowsOf(database, waiting), { interval: 10 }).toHaveLength(count);
  return { holder, queued };
}
