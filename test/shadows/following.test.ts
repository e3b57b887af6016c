import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { added, bothHold, caughtUp, startPair } from "./pair.ts";

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test("a shadow gets what the primary took, with its own IDs for the records and in every reference", async () => {
    await using pair = await startPair(queues);
    const { gateway, shadow } = pair;
    await added(gateway);
    const phone = newPhone(gateway);
    const [mentor, second, activity] = [tempId(), tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
    phone.add({ op: "create", entity: "mentor", recordId: second, data: { name: "Ola", mentor } });
    phone.add({ op: "create", recordId: activity, data: { mentor, others: [mentor, second], minutes: 45 } });
    const [created] = await phone.replay();
    phone.add({ op: "update", recordId: activity, data: { minutes: 50, mentor: created?.recordId } });
    phone.add({ op: "create", recordId: tempId(), data: { mentor: created?.recordId, minutes: 10 } });
    phone.add({ op: "create", recordId: tempId(), data: { minutes: 1 } });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied", "applied"]);
    await caughtUp(gateway);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(shadow.records("activities")).toHaveLength(3);
    for (const { record = "" } of shadow.effects) expect(record).not.toContain("urn:uuid:");
    expect(await rowsOf(gateway.database, "select 1 from delivery")).toEqual([]);
  });

  test("a dead shadow costs the primary nothing, and catches up when it is back", async () => {
    await using pair = await startPair(queues, { shadow: { circuit: { failures: 3, cooldownMs: 200 } } });
    const { gateway, primary, shadow } = pair;
    await added(gateway);
    await shadow.stop();
    const phones = Array.from({ length: 3 }, () => newPhone(gateway));
    for (const phone of phones) {
      for (let n = 0; n < 20; n++) phone.add({ op: "create", recordId: tempId(), data: { n } });
      expect(linesOf(await phone.replay())).toEqual(Array.from({ length: 20 }, () => "applied"));
    }
    expect(primary.requests).toHaveLength(60);
    expect(shadow.effects).toEqual([]);
    await shadow.start();
    await caughtUp(gateway);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(shadow.effects).toHaveLength(60);
  });
});

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test("several phones write the same records, and the shadow sees each record's changes in the primary's order", async () => {
    await using pair = await startPair(queues, { primary: { concurrency: 4 } });
    const { gateway, primary, shadow } = pair;
    await added(gateway);
    const first = newPhone(gateway);
    const records = Array.from({ length: 3 }, () => tempId());
    for (const [name, recordId] of records.entries())
      first.add({ op: "create", recordId, data: { name, log: "0" } });
    await first.replay();
    const phones = Array.from({ length: 4 }, () => newPhone(gateway));
    await Promise.all(
      phones.map(async (phone, who) => {
        for (let n = 0; n < 12; n++) {
          phone.add({
            op: "update",
            recordId: records[n % 3] ?? "",
            data: { log: `${who}-${n}`, [`by${who}`]: n },
          });
        }
        await phone.send({ wait: 0 });
        await phone.settled(60_000);
      }),
    );
    await caughtUp(gateway);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    // Each of the two numbers its records in the order in which it got them.
    const logOf = (system: typeof primary, name: number): string[] =>
      system.effects
        .map(({ record = "" }) => JSON.parse(record) as { name: number; log: string })
        .filter((record) => record.name === name)
        .map(({ log }) => log);
    for (const name of records.keys()) {
      // Where two crossed, the shadow gets the later one only; it never sees them the other way round.
      const order = logOf(primary, name);
      const places = logOf(shadow, name).map((entry) => order.indexOf(entry));
      expect(places).not.toContain(-1);
      expect(places).toEqual(places.toSorted((a, b) => a - b));
      expect(places.at(-1)).toBe(order.length - 1);
    }
  });

  test("what a shadow refuses is parked there; later changes of that record wait, others and the clients know nothing of it", async () => {
    await using pair = await startPair(queues);
    const { gateway, shadow } = pair;
    await added(gateway);
    shadow.always(
      ({ method, body }) => method === "POST" && body.toString().includes("bad"),
      faults.status(422, { body: '{"error":"bad"}' }),
    );
    const phone = newPhone(gateway);
    const [bad, good, dependent] = [tempId(), tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: bad, data: { name: "bad" } });
    phone.add({ op: "create", entity: "mentor", recordId: good, data: { name: "good" } });
    phone.add({ op: "update", entity: "mentor", recordId: bad, data: { name: "better" } });
    phone.add({ op: "create", recordId: dependent, data: { mentor: bad } });
    phone.add({ op: "create", recordId: tempId(), data: { mentor: good } });
    const results = await phone.replay();
    expect(linesOf(results)).toEqual(Array.from({ length: 5 }, () => "applied"));
    await caughtUp(gateway);
    const states = await rowsOf<{ state: string; upstream_id: string }>(
      gateway.database,
      "select upstream_id, state from delivery order by state",
    );
    expect(states).toEqual([
      { upstream_id: "next", state: "held" },
      { upstream_id: "next", state: "held" },
      { upstream_id: "next", state: "parked" },
    ]);
    expect(shadow.records("mentors")).toHaveLength(1);
    expect(shadow.records("activities")).toHaveLength(1);
    expect(linesOf(await phone.outcomes())).toEqual(linesOf(results));
    const { body } = await phone.api.get(`/v1/changes?clientId=${phone.clientId}`);
    const outcomes = (body.changes as { type: string }[]).filter(({ type }) => type === "outcome");
    expect(outcomes).toHaveLength(5);
  });
});
