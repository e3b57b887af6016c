import { Client } from "pg";
import { expect } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import { rowsOf } from "./rows.ts";

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
    const waiting =
      "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
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
