import { expect, test } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import { spread } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator } from "./open.ts";
import { added, bothHold, caughtUp, startPair, type Pair } from "./pair.ts";
import { misfortune, misfortunes, numbersIn, numbersOf, runProgram } from "./program.ts";

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

const collections = { mentor: "mentors", activity: "activities" };

/**
 * Each record's changes took effect in the shadow in the primary's order, none twice. Where two crossed, the shadow may get
 * the later one's numbers with either; what it is sent is then not the same.
 */
async function eachInOrderOnce({ gateway, primary, shadow }: Pair): Promise<void> {
  const rows = await rowsOf<{ entity: "mentor" | "activity"; server_id: string; own_id: string }>(
    gateway.database,
    "select * from shadow_record",
  );
  const names = new Map(
    rows.map(({ entity, server_id, own_id }) => [
      `${collections[entity]}/${own_id}`,
      `${collections[entity]}/${server_id}`,
    ]),
  );
  const named = (collection: string, id: string): string => names.get(`${collection}/${id}`) ?? `? ${id}`;
  const atPrimary = numbersIn(primary, (collection, id) => `${collection}/${id}`);
  for (const [record, numbers] of numbersIn(shadow, named)) {
    const order = atPrimary.get(record) ?? [];
    const places = numbers.map((n) => order.indexOf(n));
    expect(places, record).not.toContain(-1);
    expect(places, record).toEqual(places.toSorted((a, b) => a - b));
  }
  const sent = shadow.effects.map(
    ({ op, collection, id, request }) => `${op} ${collection}/${id} ${request.body.toString()}`,
  );
  expect(sent.filter((one, index) => sent.indexOf(one) !== index)).toEqual([]);
}

test.each(spread([[21], [22]] as const))(
  "on %s, after a random program of which the shadow parks much, and releases while it goes on (seed %i), both hold the same",
  { timeout: 180_000 },
  async (queues, seed) => {
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
    await eachInOrderOnce(pair);
    const rows = await rowsOf(pair.gateway.database, "select 1 from command where done_at is null");
    expect(rows).toEqual([]);
  },
);
