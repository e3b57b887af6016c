import { pino } from "pino";
import { expect, test } from "vitest";

import { createLeaseKeeper } from "./lease-keeper.ts";
import type { Slice } from "./slice.ts";

const all = async (held: { laneId: string }[]) => new Set(held.map(({ laneId }) => laneId));

test("a claim on a record is renewed though its lane's lease, which commits renew, is long", async () => {
  const leaseMs = 60;
  const recordClaim = { laneId: "a", epoch: 1, entity: "activity", serverId: "1", leaseUntil: 0 };
  const claim = { laneId: "a", epoch: 1 };
  const slice = { claim, recordClaim, leaseUntil: Infinity } as unknown as Slice;
  const store = { renew: all, renewRecords: all };
  const keeper = createLeaseKeeper(store, { leaseMs, log: pino({ level: "silent" }) });
  try {
    await keeper.keep(slice, async () => {
      await expect.poll(() => recordClaim.leaseUntil, { timeout: 10_000 }).toBeGreaterThan(0);
    });
  } finally {
    keeper.stop();
  }
});
