import { describe, expect, test } from "vitest";

import { queueBackends } from "../fixtures/redis.ts";
import { rowsOf } from "../replay/rows.ts";
import { added, bothHold, caughtUp, startPair } from "./pair.ts";
import { misfortune, numbersOf, runProgram } from "./program.ts";

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test.each([11, 12].flatMap((seed) => [true, false].map((follow) => [seed, follow] as const)))(
    "after a random program with faults (seed %i, follow: %s) primary and shadow hold the same",
    async (seed, follow) => {
      const config = {
        primary: { timeoutMs: 300, circuit: { failures: 10_000, cooldownMs: 20 } },
        shadow: { timeoutMs: 300, follow },
      };
      await using pair = await startPair(queues, config);
      await added(pair.gateway);
      const next = numbersOf(seed);
      misfortune(pair.primary, next);
      misfortune(pair.shadow, next);
      await runProgram(pair, next);
      await caughtUp(pair.gateway);
      const held = await bothHold(pair);
      expect(held.shadow).toEqual(held.primary);
      expect(await rowsOf(pair.gateway.database, "select * from delivery")).toEqual([]);
    },
  );
});
