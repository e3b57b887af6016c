import { afterAll, beforeAll, expect, test } from "vitest";

import { openWorld, type World } from "./schedules/world.ts";
import { writeBySequence } from "./schedules/bare-sequence.ts";
import { runSchedule, type Met } from "./schedules/schedule.ts";

/** 1,000 by `npm run test:feed`; a seed that failed is run again by FEED_SEED and FEED_SCHEDULES=1. */
const schedules = Number(process.env["FEED_SCHEDULES"] ?? 12);
const firstSeed = Number(process.env["FEED_SEED"] ?? Math.floor(Math.random() * 1_000_000));
const atOnce = 4;

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(async () => {
  await world.close();
});

test(
  "every reader ends with exactly what is in its scopes, whoever writes, waits, moves and prunes meanwhile",
  { timeout: 60_000 + schedules * 5_000 },
  async () => {
    const met: Met = { pruned: 0, expired: 0 };
    let next = firstSeed;
    const run = async (): Promise<void> => {
      while (next < firstSeed + schedules) {
        const seed = next++;
        const one = await runSchedule(world, seed).catch((cause: unknown) => {
          throw new Error(`seed ${seed}: ${String(cause)}`, { cause });
        });
        met.pruned += one.pruned;
        met.expired += one.expired;
      }
    };
    await Promise.all(Array.from({ length: atOnce }, run));
    if (schedules >= 12) expect(Math.min(met.pruned, met.expired)).toBeGreaterThan(0);
  },
);

test("a feed in the order of a bare sequence is found out", { timeout: 120_000 }, async () => {
  const mix = { write: writeBySequence, records: 30, slowWritesMax: 20 };
  const found = async (): Promise<string> => {
    for (let seed = 1; seed <= 40; seed++) {
      const failure = await runSchedule(world, -seed, mix).then(() => undefined, String);
      if (failure !== undefined) return failure;
    }
    return "nothing";
  };
  expect(await found()).toMatch(/reader \d+/);
});
