import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone } from "../replay/phone.ts";
import { newShadowOperator, openOf, released } from "./open.ts";
import { bothHold, caughtUp, sharedPair } from "./pair.ts";

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const pair = sharedPair("postgres");

  /** A create that was left out in the shadow, and the create of an activity that refers to its record. */
  async function withLeftOut() {
    const { gateway, shadow } = pair;
    const operator = newShadowOperator(gateway);
    const phone = newPhone(gateway);
    const mentor = tempId();
    shadow.script({ method: "POST" }, faults.status(418));
    const create = phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { n: 1 } });
    const refers = phone.add({ op: "create", recordId: tempId(), data: { mentor, n: 2 } });
    await phone.replay();
    await caughtUp(gateway);
    await operator.command(create.id, { command: "reject" });
    const open = async (): Promise<string[]> => await openOf(gateway, [create, refers]);
    await expect.poll(open, { timeout: 20_000 }).toEqual(["none", "parked"]);
    return { operator, phone, mentor, refers };
  }

  test("what refers to a record that was left out goes on once a further change of the record has brought it", async () => {
    const { operator, phone, mentor, refers } = await withLeftOut();
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { m: 3 } });
    await phone.replay();
    await caughtUp(pair.gateway);
    await operator.command(refers.id, { command: "retry" });
    await released(pair.gateway, [refers]);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
  });

  test("what refers to a record that was left out can be made by hand; later changes of it wait for the record", async () => {
    const { operator, phone, mentor, refers } = await withLeftOut();
    pair.shadow.seed("activities", ['{"id":9500,"n":2}']);
    await operator.command(refers.id, { command: "applied", recordId: "9500" });
    expect(await operator.done(refers.id)).toEqual(["applied"]);
    const later = phone.add({ op: "update", recordId: refers.recordId, data: { n: 4 } });
    await phone.replay();
    await caughtUp(pair.gateway);
    expect(await openOf(pair.gateway, [later])).toEqual(["parked"]);
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { m: 3 } });
    await phone.replay();
    await caughtUp(pair.gateway);
    await operator.command(later.id, { command: "retry" });
    await released(pair.gateway, [later]);
    const found = pair.shadow.records("activities").find((text) => text.includes("9500")) ?? "{}";
    expect(JSON.parse(found)).toMatchObject({ id: 9500, n: 4 });
  });
});
