import { describe, expect, test } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator } from "./open.ts";
import { added, bothHold, caughtUp, startPair } from "./pair.ts";
import { misfortune, misfortunes, numbersOf, runProgram } from "./program.ts";

const parks = faults.status(418);

/** A person who has everything sent again as soon as it is parked, until nothing is open any more. */
async function releaseAll(gateway: TestGateway, isOver: () => boolean): Promise<number> {
  const operator = newShadowOperator(gateway);
  let commands = 0;
  const retryParked = async (): Promise<number> => {
    const open = await rowsOf<{ mutation_id: string; state: string }>(
      gateway.database,
      "select mutation_id, state from delivery where upstream_id = 'next'",
    );
    for (const { mutation_id: id, state } of open) {
      if (state !== "parked") continue;
      await operator.ask(id, { command: "retry" });
      commands++;
    }
    return isOver() ? open.length : 1;
  };
  await expect.poll(retryParked, { timeout: 100_000, interval: 100 }).toBe(0);
  return commands;
}

describe.each(queueBackends())("on %s", { timeout: 180_000 }, (queues) => {
  test.each([21, 22])(
    "after a random program of which the shadow parks much, and releases while it goes on (seed %i), both hold the same",
    async (seed) => {
      const config = {
        primary: { timeoutMs: 300, circuit: { failures: 10_000, cooldownMs: 20 } },
        shadow: { timeoutMs: 300 },
      };
      await using pair = await startPair(queues, config);
      await added(pair.gateway);
      const next = numbersOf(seed);
      misfortune(pair.shadow, next, [...misfortunes, parks, parks, parks, parks, parks, parks, parks]);
      let isOver = false;
      const program = runProgram(pair, next).finally(() => (isOver = true));
      const commands = await releaseAll(pair.gateway, () => isOver);
      await program;
      expect(commands).toBeGreaterThan(3);
      await caughtUp(pair.gateway);
      await releaseAll(pair.gateway, () => true);
      const held = await bothHold(pair);
      expect(held.shadow).toEqual(held.primary);
      // Every record's changes came in the primary's order, each once.
      const rows = await rowsOf(pair.gateway.database, "select 1 from command where done_at is null");
      expect(rows).toEqual([]);
    },
  );
});
