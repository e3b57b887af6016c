import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator, openOf, released } from "./open.ts";
import { caughtUp, sharedPair } from "./pair.ts";

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const pair = sharedPair("postgres");

  const holdersOf = async (ownId: string): Promise<unknown[]> =>
    await rowsOf(pair.gateway.database, "select 1 from shadow_record where own_id = $1 and not deleted", [
      ownId,
    ]);

  /** Creates of mentors, in several lanes, that the shadow has not taken. */
  async function parkedCreates(count: number) {
    const phone = newPhone(pair.gateway);
    const lift = pair.shadow.always({ method: "POST" }, faults.status(418));
    const parked = Array.from({ length: count }, (_, n) =>
      phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: { n } }),
    );
    await phone.replay();
    await caughtUp(pair.gateway);
    lift();
    return { phone, parked };
  }

  test("of several records that are said at the same moment to be one in the shadow, one is it and the others are refused", async () => {
    const { gateway, shadow } = pair;
    const operator = newShadowOperator(gateway);
    const { parked } = await parkedCreates(6);
    shadow.seed("mentors", ['{"id":9000}']);
    const gate = Promise.withResolvers<void>();
    const reads = { method: "GET", path: "/mentors/9000" };
    shadow.script(reads, ...parked.map(() => faults.hold(gate.promise)));
    for (const { id } of parked) await operator.command(id, { command: "applied", recordId: "9000" });
    await shadow.received(reads, 2);
    gate.resolve();
    const results = await Promise.all(parked.map(async ({ id }) => await operator.done(id)));
    const refused = "refused: the shadow has another record under this ID";
    expect(results.flat().toSorted()).toEqual(["applied", ...Array.from({ length: 5 }, () => refused)]);
    expect(await holdersOf("9000")).toHaveLength(1);
    expect((await openOf(gateway, parked)).toSorted()).toEqual([
      "none",
      ...Array.from({ length: 5 }, () => "parked"),
    ]);
  });

  test("an ID that the shadow gives to two records is one's; the other is parked, and other lanes go on", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const answersSame = faults.status(201, { body: '{"id":9100}' });
    shadow.script(({ body }) => body.toString().includes('"same"'), answersSame, answersSame);
    const add = (data: object) => phone.add({ op: "create", entity: "mentor", recordId: tempId(), data });
    const same = [add({ who: "same" }), add({ who: "same" })];
    const others = Array.from({ length: 20 }, (_, n) => add({ n }));
    await phone.replay();
    await caughtUp(gateway);
    expect((await openOf(gateway, same)).toSorted()).toEqual(["none", "parked"]);
    expect(new Set(await openOf(gateway, others))).toEqual(new Set(["none"]));
    expect(await holdersOf("9100")).toHaveLength(1);
    const problems = await rowsOf(
      gateway.database,
      "select problem->>'code' as code from delivery where mutation_id = any($1)",
      [same.map(({ id }) => id)],
    );
    expect(problems).toEqual([{ code: "upstream-unexpected" }]);
    const parked = same[(await openOf(gateway, same)).indexOf("parked")];
    shadow.seed("mentors", ['{"id":9101}']);
    await newShadowOperator(gateway).command(parked?.id ?? "", { command: "applied", recordId: "9101" });
    await released(gateway, same);
  });

  test("an ID whose record was deleted in the shadow may be another's", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const answersSame = faults.status(201, { body: '{"id":9200}' });
    shadow.script(({ body }) => body.toString().includes('"again"'), answersSame, answersSame);
    const recordId = tempId();
    const all = [
      phone.add({ op: "create", entity: "mentor", recordId, data: { who: "again" } }),
      phone.add({ op: "delete", entity: "mentor", recordId }),
    ];
    await phone.replay();
    await caughtUp(gateway);
    all.push(phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: { who: "again" } }));
    await phone.replay();
    await caughtUp(gateway);
    expect(new Set(await openOf(gateway, all))).toEqual(new Set(["none"]));
    expect(await holdersOf("9200")).toHaveLength(1);
  });
});
