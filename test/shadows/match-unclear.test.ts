import { describe, expect, test } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { CommandBody } from "../replay/operator.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import type { LaterPair } from "./later.ts";
import {
  addMentors,
  creates,
  expectSame,
  hold,
  memberOf,
  open,
  ownIdsOf,
  startMatching,
  type Open,
} from "./matched.ts";
import { newShadowOperator } from "./open.ts";
import { caughtUp } from "./pair.ts";

/** A mentor of whom the shadow has two: the pairing is parked. */
async function withTwoAlike({ gateway, shadow, addShadow }: LaterPair) {
  const phone = newPhone(gateway);
  const [mentor = ""] = addMentors(phone, [1]);
  await phone.replay();
  hold(shadow, [1, 1]);
  const later = await addShadow();
  await caughtUp(later);
  const [parked] = await open(gateway);
  return { phone, mentor, later, parked };
}

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test.each<[command: CommandBody["command"], mentors: number]>([
    ["retry", 1],
    ["applied", 2],
    ["reject", 3],
  ])(
    "one that has two of the same value in the shadow is parked, and released by %s",
    async (command, mentors) => {
      await using pair = await startMatching(queues);
      const { gateway, shadow } = pair;
      const { phone, mentor, later, parked } = await withTwoAlike(pair);
      expect(parked).toMatchObject({ state: "parked", problem: { code: "match-unclear" } });
      expect(shadow.effects).toEqual([]);
      phone.add({
        op: "update",
        entity: "mentor",
        recordId: mentor,
        // A seed goes by the value that the record has when it is sent; and what is left out, by that of its next change.
        data: { name: "later", ...(command === "reject" && { memberNo: "no. 2" }) },
      });
      await phone.replay();
      await caughtUp(later);
      const [first, ...behind] = await open(gateway);
      expect(first).toMatchObject({ mutation_id: parked?.mutation_id, state: "parked" });
      expect(new Set(behind.map(({ state }) => state))).toEqual(new Set(["held"]));
      if (command === "retry") shadow.apply(deletes("/mentors/7001"));
      const body = { command, ...(command === "applied" && { recordId: "7002" }) };
      await newShadowOperator(later).command(parked?.mutation_id ?? "", body);
      await expect.poll(async () => await open(gateway), { timeout: 30_000 }).toEqual([]);
      await caughtUp(later);
      expect(shadow.records("mentors")).toHaveLength(mentors);
      const ownId = (await ownIdsOf(pair)).get(mentor) ?? "";
      if (command !== "reject") expect(ownId).toBe("7002");
      const own = shadow
        .records("mentors")
        .find((text) => String((JSON.parse(text) as { id: number }).id) === ownId);
      expect(JSON.parse(own ?? "{}")).toMatchObject({ name: "later" });
    },
  );

  test("what was left out is paired by its next change, and gets the record as a whole", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const { phone, mentor, later, parked } = await withTwoAlike(pair);
    await newShadowOperator(later).command(parked?.mutation_id ?? "", { command: "reject" });
    await expect.poll(async () => await open(gateway), { timeout: 30_000 }).toEqual([]);
    shadow.apply(deletes("/mentors/7001"));
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { later: true } });
    await phone.replay();
    await caughtUp(later);
    expect(shadow.records("mentors")).toEqual(['{"memberNo":"no. 1","name":"m0","id":7002,"later":true}']);
    await expectSame(pair);
  });

  test("a seed whose create may have taken effect is that record, whatever value the record has by then", async () => {
    const entity = {
      create: { class: "lookup" },
      reference: "/externalRef",
      lookup: "{path}?externalRef={tempId}",
    };
    await using pair = await startMatching(queues, { entity });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [mentor = ""] = addMentors(phone, [1]);
    await phone.replay();
    hold(shadow, [2]);
    const gate = Promise.withResolvers<void>();
    const lostLate: Fault = async ({ apply, socket }) => {
      apply();
      await gate.promise;
      socket.resetAndDestroy();
    };
    shadow.script({ method: "POST" }, lostLate);
    const later = await pair.addShadow();
    await shadow.received({ method: "POST" });
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { memberNo: memberOf(2) } });
    await phone.replay();
    gate.resolve();
    await caughtUp(later);
    expect((await ownIdsOf(pair)).get(mentor)).toBe("7002");
    expect(creates(shadow)).toEqual(["mentors"]);
    await expectSame(pair, [memberOf(2)]);
  });

  test("what a person has named as one record is paired with no other", async () => {
    // What it holds stays as it is.
    await using pair = await startMatching(queues, { entity: { update: { enabled: false } } });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, [5]);
    await phone.replay();
    hold(shadow, [1]);
    shadow.script({ method: "POST" }, faults.status(418));
    const later = await pair.addShadow();
    await caughtUp(later);
    const [first] = await open(gateway);
    const operator = newShadowOperator(later);
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "7001" });
    expect(await operator.done(first?.mutation_id ?? "")).toEqual(["applied"]);
    const second = addMentors(phone, [1]);
    await phone.replay();
    await caughtUp(later);
    expect((await open(gateway)).map(({ problem }) => problem?.code)).toEqual(["match-unclear"]);
    expect((await ownIdsOf(pair)).get(second[0] ?? "")).toBeUndefined();
  });

  test("two records of the same value never take the same one: the second is parked, and left out or named by a person", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, [1, 1]);
    await phone.replay();
    hold(shadow, [1, 2]);
    const later = await pair.addShadow();
    addMentors(phone, [1, 2]);
    await phone.replay();
    await caughtUp(later);
    const taken = "select server_id from shadow_record where own_id = '7001'";
    expect(await rowsOf(gateway.database, taken)).toHaveLength(1);
    const parked = (await open(gateway)).filter(({ problem }) => problem?.code === "match-unclear");
    expect(parked.length).toBeGreaterThanOrEqual(1);
    expect(creates(shadow)).toEqual([]);
    const operator = newShadowOperator(later);
    const [first] = parked;
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "7001" });
    expect(await operator.done(first?.mutation_id ?? "")).toEqual([
      "refused: the shadow has another record under this ID",
    ]);
    // One that is named by a person is nobody else's any more.
    shadow.seed("mentors", ['{"id":9000,"memberNo":"no. 1"}']);
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "9000" });
    expect(await operator.done(first?.mutation_id ?? "")).toContain("applied");
    await expect.poll(async () => await releaseAll(later, "reject"), { timeout: 30_000 }).toEqual([]);
    expect(creates(shadow)).toEqual([]);
  });
});

function deletes(path: string): Parameters<ScriptedUpstream["apply"]>[0] {
  return { method: "DELETE", path, headers: {}, body: Buffer.alloc(0) };
}

/** What is still open, after a decision about what is parked. */
async function releaseAll(later: TestGateway, command: "reject"): Promise<Open[]> {
  const rows = await open(later);
  for (const { mutation_id: id, state } of rows)
    if (state === "parked") await newShadowOperator(later).ask(id, { command });
  return rows;
}
