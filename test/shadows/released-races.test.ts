import { beforeAll, describe, expect, test } from "vitest";

import { partitionOf } from "../../src/change-feed/applied-log.ts";
import { tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { whileLocked } from "../replay/locked.ts";
import type { Operator } from "../replay/operator.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator, openOf, released } from "./open.ts";
import { bothHold, caughtUp, sharedPair } from "./pair.ts";

const has =
  (marker: string) =>
  ({ body }: RecordedRequest): boolean =>
    body.toString().includes(marker);

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  // A held call must not time out.
  const pair = sharedPair(queues, { shadow: { timeoutMs: 15_000 } });
  let operator: Operator;
  beforeAll(() => {
    operator = newShadowOperator(pair.gateway);
  });

  /** A shadow's lane in hand: one record's change is parked, and a call for another record is under way. */
  async function inHand() {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [first, second] = await twoOfOneLane(phone);
    const [parkedMarker, marker, gate] = [
      tempId().slice(9),
      tempId().slice(9),
      Promise.withResolvers<void>(),
    ];
    shadow.script(has(parkedMarker), faults.status(418));
    shadow.script(has(marker), async ({ send }) => {
      await gate.promise;
      send({ status: 418, body: "no" });
    });
    const parked = phone.add({ op: "update", recordId: first, data: { parkedMarker, n: 1 } });
    const other = phone.add({ op: "update", recordId: second, data: { marker, n: 2 } });
    const held = phone.add({ op: "update", recordId: first, data: { n: 3 } });
    const behind = phone.add({ op: "update", recordId: second, data: { n: 4 } });
    await phone.replay();
    await shadow.received(has(marker));
    await expect.poll(async () => await openOf(gateway, [parked])).toEqual(["parked"]);
    const { body } = await gateway.asOps().get(`/ops/v1/tenants/ours/shadows/next/changes/${parked.id}`);
    return { gate, parked, other, held, behind, laneId: body.open.laneId as string };
  }

  /** Two records whose changes are in one lane. */
  async function twoOfOneLane(phone: ReturnType<typeof newPhone>): Promise<[string, string]> {
    for (let n = 0; n < 20; n++) phone.add({ op: "create", recordId: tempId(), data: { n } });
    const batch = phone.batch();
    const { body } = await phone.api.upload(batch);
    await caughtUp(pair.gateway);
    const seen = new Map<number, string>();
    for (const { tempId: own = "", recordId: serverId } of body.results as {
      tempId?: string;
      recordId: string;
    }[]) {
      const partition = partitionOf({ entity: "activity", serverId });
      const another = seen.get(partition);
      if (another !== undefined) return [another, own];
      seen.set(partition, own);
    }
    throw new Error("more records than lanes, and no two in one");
  }

  async function expectAllReleased({ parked, other, held, behind }: Awaited<ReturnType<typeof inHand>>) {
    const all = [parked, held, other, behind];
    await expect
      .poll(async () => await openOf(pair.gateway, all), { timeout: 30_000 })
      .toEqual(["none", "none", "parked", "held behind 2"]);
    await operator.command(other.id, { command: "retry" });
    await released(pair.gateway, all);
    await caughtUp(pair.gateway);
    const systems = await bothHold(pair);
    expect(systems.shadow).toEqual(systems.primary);
    expect(await rowsOf(pair.gateway.database, "select 1 from command where done_at is null")).toEqual([]);
  }

  describe("a release that races the lane's own parking, holding and giving back strands nothing", () => {
    test("given while a call is under way", async () => {
      const lane = await inHand();
      await operator.command(lane.parked.id, { command: "retry" });
      lane.gate.resolve();
      await expectAllReleased(lane);
    });

    test("right before the owner's commit", async () => {
      const lane = await inHand();
      await whileLocked(pair.gateway, lane.laneId, async (queued) => {
        const given = operator.command(lane.parked.id, { command: "retry" });
        await queued(1);
        lane.gate.resolve();
        await queued(2);
        return [given];
      });
      await expectAllReleased(lane);
    });

    test("right behind the owner's commit", async () => {
      const lane = await inHand();
      await whileLocked(pair.gateway, lane.laneId, async (queued) => {
        lane.gate.resolve();
        await queued(1);
        const given = operator.command(lane.parked.id, { command: "retry" });
        await queued(2);
        return [given];
      });
      await expectAllReleased(lane);
    });
  });

  test("commands about one change are carried out in the order in which they were given", async () => {
    const lane = await inHand();
    await operator.command(lane.parked.id, { command: "retry" });
    await operator.command(lane.parked.id, { command: "reject" });
    lane.gate.resolve();
    expect(await operator.done(lane.parked.id)).toEqual(["applied", "refused: it had ended"]);
    await operator.command(lane.other.id, { command: "reject" });
    await released(pair.gateway, [lane.parked, lane.other, lane.held, lane.behind]);
  });

  test("what was held at the very moment when what it waits for ended is found, though nobody woke its lane", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [mentor, marker] = [tempId(), tempId().slice(9)];
    shadow.script(has(marker), faults.status(418));
    const parked = phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker } });
    const held = phone.add({ op: "create", recordId: tempId(), data: { mentor } });
    await phone.replay();
    await caughtUp(gateway);
    // As it would stand if another change of the mentor had been what it was held behind, and had ended.
    const gone = tempId().slice(9);
    await rowsOf(gateway.database, "update delivery set blocked_by = $1 where mutation_id = $2", [
      gone,
      held.id,
    ]);
    await expect
      .poll(async () => await openOf(gateway, [parked, held]), { timeout: 30_000 })
      .toEqual(["parked", "held behind 0"]);
    await operator.command(parked.id, { command: "retry" });
    await released(gateway, [parked, held]);
  });
});
