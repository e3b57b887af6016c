import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { startLater } from "./later.ts";
import { newShadowOperator, openOf, released } from "./open.ts";
import { added, bothHold, caughtUp, startPair, startSystems, withShadow, type Pair } from "./pair.ts";
import { misfortune, numbersOf, runProgram } from "./program.ts";
import { leftOf, pruneShadows } from "./pruned.ts";

const queues = "postgres";

/** Creates of mentors, by their temp IDs. */
function create(phone: Phone, count: number): string[] {
  return Array.from({ length: count }, (_, n) => {
    const recordId = tempId();
    phone.add({ op: "create", entity: "mentor", recordId, data: { n } });
    return recordId;
  });
}

function change(phone: Phone, records: string[], data: object): void {
  for (const recordId of records) phone.add({ op: "update", entity: "mentor", recordId, data });
}

async function expectSame(pair: Pair): Promise<void> {
  const held = await bothHold(pair);
  expect(held.shadow).toEqual(held.primary);
}

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  test("of what a shadow has not passed nothing goes; when it has passed all, all goes, and it follows on", async () => {
    await using pair = await startPair(queues);
    const { gateway, shadow } = pair;
    await added(gateway);
    const comesBack = shadow.always({}, faults.status(503));
    const phone = newPhone(gateway);
    const records = create(phone, 20);
    change(phone, records, { later: true });
    await phone.replay();
    expect(await pruneShadows(gateway)).toMatchObject({ change: 0 });
    comesBack();
    await caughtUp(gateway);
    expect(await pruneShadows(gateway)).toMatchObject({ change: 40 });
    expect(await leftOf(gateway)).toEqual({ shadow: 1, lane: 16, shadow_record: 20 });
    change(phone, records, { last: true });
    await phone.replay();
    await caughtUp(gateway);
    await expectSame(pair);
  });

  test("what is parked or held in a shadow stays until a person has decided, however far the lanes have come", async () => {
    await using pair = await startPair(queues);
    const { gateway, shadow } = pair;
    await added(gateway);
    shadow.script({ method: "POST" }, faults.status(418));
    const phone = newPhone(gateway);
    const first = tempId();
    const mentor = { entity: "mentor", recordId: first };
    const open = [
      phone.add({ op: "create", ...mentor, data: { a: 1 } }),
      phone.add({ op: "update", ...mentor, data: { b: 1 } }),
      phone.add({ op: "create", recordId: tempId(), data: { mentor: first } }),
    ];
    await phone.replay();
    await caughtUp(gateway);
    create(phone, 20);
    await phone.replay();
    await caughtUp(gateway);
    expect(await pruneShadows(gateway)).toMatchObject({ change: 20 });
    expect(await openOf(gateway, open)).toEqual(["parked", "held behind 0", "held behind 0"]);
    await newShadowOperator(gateway).command(open[0]?.id ?? "", { command: "retry" });
    await released(gateway, open);
    await caughtUp(gateway);
    expect(await pruneShadows(gateway)).toMatchObject({ change: 3 });
    await expectSame(pair);
  });

  test("seeds stay until a shadow has them all, and what is parked of them is decided", async () => {
    await using pair = await startLater(queues, {});
    const phone = newPhone(pair.gateway);
    const mentors = create(phone, 5);
    for (const mentor of mentors) phone.add({ op: "create", recordId: tempId(), data: { mentor } });
    await phone.replay();
    const gate = Promise.withResolvers<void>();
    pair.shadow.script({ method: "POST" }, faults.status(418), faults.hold(gate.promise));
    const later = await pair.addShadow();
    await pair.shadow.received({ method: "POST" }, 2);
    change(phone, mentors, { changed: true });
    await phone.replay();
    // Lanes that wait for nothing may have passed changes by now.
    expect(await pruneShadows(later)).toMatchObject({ seed: 0, forgotten: 0 });
    gate.resolve();
    await caughtUp(later);
    expect(await pruneShadows(later)).toMatchObject({ seed: 0 });
    const { body } = await later.asOps().get("/ops/v1/tenants/ours/shadows/next/parked");
    const [parked] = body.changes as { id: string; kind: string }[];
    expect(parked?.kind).toBe("seed");
    await newShadowOperator(later).command(parked?.id ?? "", { command: "retry" });
    await expect.poll(async () => (await leftOf(later))["delivery"], { timeout: 30_000 }).toBeUndefined();
    await caughtUp(later);
    expect((await pruneShadows(later))["seed"]).toBeGreaterThanOrEqual(10);
    expect(await leftOf(later)).toEqual({ shadow: 1, lane: 16, shadow_record: 10 });
    change(phone, mentors, { last: true });
    await phone.replay();
    await caughtUp(later);
    await expectSame(pair);
  });

  test("a worker that takes over after a kill finds what it needs, though all was pruned meanwhile", async () => {
    const [primary, shadow] = await startSystems();
    const upstreams = withShadow(primary.url, shadow.url);
    await using gateway = await startGateway({ queues, role: "api", upstreams });
    const pair: Pair = { gateway, primary, shadow, [Symbol.asyncDispose]: () => Promise.resolve() };
    await using victim = await startWorkerProcess(gateway);
    const never = new Promise<void>(() => undefined);
    const held = Array.from({ length: 4 }, () => faults.hold(never, { effect: true }));
    shadow.script({ method: "POST" }, ...held);
    const phone = newPhone(gateway);
    const records = create(phone, 16);
    change(phone, records, { later: true });
    expect(new Set(linesOf(await phone.replay()))).toEqual(new Set(["applied"]));
    await shadow.received({ method: "POST" }, 4);
    await pruneShadows(gateway);
    victim.signal("SIGKILL");
    await victim.exited;
    await pruneShadows(gateway);
    await gateway.another("worker");
    await caughtUp(gateway);
    await expectSame(pair);
    expect(shadow.effects.filter(({ op }) => op === "create")).toHaveLength(16);
    expect(await pruneShadows(gateway)).toMatchObject({ seed: 0 });
    expect(await leftOf(gateway)).toEqual({ shadow: 1, lane: 16, shadow_record: 16 });
    await primary.stop();
    await shadow.stop();
  });

  test("after a random program with faults, pruned at every moment, primary and shadow hold the same", async () => {
    const hasty = { timeoutMs: 300, circuit: { failures: 10_000, cooldownMs: 20 } };
    await using pair = await startPair(queues, { primary: hasty, shadow: { ...hasty, follow: true } });
    const { gateway } = pair;
    await added(gateway);
    const next = numbersOf(21);
    misfortune(pair.primary, next);
    misfortune(pair.shadow, next);
    const over = new AbortController();
    const program = runProgram(pair, next)
      .then(() => caughtUp(gateway))
      .finally(() => over.abort());
    let gone = 0;
    while (!over.signal.aborted) gone += (await pruneShadows(gateway, 1 + next(20)))["change"] ?? 0;
    await program;
    expect(gone).toBeGreaterThan(0);
    await expectSame(pair);
    await pruneShadows(gateway);
    expect(await leftOf(gateway)).not.toHaveProperty("applied_change");
  });
});
