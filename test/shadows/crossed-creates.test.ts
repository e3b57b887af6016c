import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newOperator } from "../replay/operator.ts";
import { newPhone } from "../replay/phone.ts";
import { newShadowOperator, released } from "./open.ts";
import { bothHold, caughtUp, sharedPair, type Pair } from "./pair.ts";

/** What the shadow was sent to create, in order. */
function createdOf({ shadow }: Pair): unknown[] {
  return shadow.effects
    .filter(({ op }) => op === "create")
    .map(({ request }) => JSON.parse(request.body.toString()) as unknown);
}

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const pair = sharedPair("postgres");

  /** A create that the primary did not take. */
  async function parkedAtPrimary(data: object) {
    const phone = newPhone(pair.gateway);
    pair.primary.script({ method: "POST" }, faults.status(418));
    const parked = phone.add({ op: "create", entity: "mentor", recordId: tempId(), data });
    await phone.replay();
    return parked;
  }

  async function apply(id: string, recordId: string): Promise<void> {
    const operator = newOperator(pair.gateway);
    await operator.command(id, { command: "applied", recordId });
    expect(await operator.done(id)).toEqual(["applied"]);
    await caughtUp(pair.gateway);
  }

  test("a create that a person says is applied is made in the shadow as the primary has it, with the shadow's names", async () => {
    const phone = newPhone(pair.gateway);
    const other = tempId();
    phone.add({ op: "create", entity: "mentor", recordId: other, data: { name: "other" } });
    const [made] = await phone.replay();
    const parked = await parkedAtPrimary({ a: 1, b: 2, mentor: other, in: { c: 1, d: 2 } });
    const mentor = JSON.stringify(made?.recordId);
    pair.primary.seed("mentors", [`{"id":9000,"a":1,"mentor":${mentor},"in":{"c":3},"n":null,"m":7}`]);
    await apply(parked.id, "9000");
    const { primary, shadow } = await bothHold(pair);
    expect(shadow).toEqual(primary);
    const own = { a: 1, mentor: expect.any(String) as unknown, in: { c: 3 }, n: null, m: 7 };
    expect(createdOf(pair).at(-1)).toEqual(own);
  });

  test("one whose record others had made known before, and which the shadow lacks, is made there as a whole", async () => {
    const { gateway, primary, shadow } = pair;
    const parked = await parkedAtPrimary({ a: 1, b: 2 });
    primary.seed("mentors", ['{"id":9100,"a":1,"c":3,"d":4}']);
    const other = newPhone(gateway);
    shadow.script({ method: "POST" }, faults.status(418));
    const found = other.add({ op: "update", entity: "mentor", recordId: "9100", data: { d: 5 } });
    await other.replay();
    await caughtUp(gateway);
    await newShadowOperator(gateway).command(found.id, { command: "reject" });
    await released(gateway, [found]);
    await apply(parked.id, "9100");
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(createdOf(pair).at(-1)).toEqual({ a: 1, c: 3, d: 5 });
  });

  test("one whose record the shadow has by then changes it, and removes what the primary does not have", async () => {
    const { gateway, primary } = pair;
    const parked = await parkedAtPrimary({ a: 1, b: 2 });
    primary.seed("mentors", ['{"id":9200,"a":0,"c":3,"d":4}']);
    const other = newPhone(gateway);
    other.add({ op: "update", entity: "mentor", recordId: "9200", data: { d: 5 } });
    await other.replay();
    await caughtUp(gateway);
    primary.seed("mentors", ['{"id":9200,"a":1,"d":5}']);
    await apply(parked.id, "9200");
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
  });
});
