import { expect, test } from "vitest";

import { spread } from "../fixtures/redis.ts";
import { rowsOf } from "../replay/rows.ts";
import { added, bothHold, caughtUp, startPair } from "./pair.ts";
import { misfortune, numbersOf, runProgram } from "./program.ts";

test.each(
  spread([
    [11, true],
    [11, false],
    [12, false],
    [12, true],
  ] as const),
)(
  "on %s, after a random program with faults (seed %i, follow: %s) primary and shadow hold the same",
  { timeout: 120_000 },
  async (queues, seed, follow) => {
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
