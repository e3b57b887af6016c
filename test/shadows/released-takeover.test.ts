import { expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { spread } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone } from "../replay/phone.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { effectsOf, newShadowOperator, openOf, released } from "./open.ts";
import { added, bothHold, caughtUp, startSystems, withShadow, type Pair } from "./pair.ts";

const never = new Promise<void>(() => undefined);
const isIts = (method: string) => (request: { method: string; path: string }) =>
  request.method === method && request.path.includes("mentors");
const searched = {
  create: { class: "lookup" },
  update: { class: "lookup" },
  reference: "/externalRef",
  lookup: "{path}?externalRef={tempId}",
};
const opaque = { create: { class: "opaque" }, update: { class: "opaque" } };

test.each(
  spread([
    ["can be searched", searched],
    ["can't tell", opaque],
  ] as const),
)(
  "on %s, a worker that is killed while it carries out what was released leaves one effect: a shadow that %s",
  { timeout: 120_000 },
  async (queues, _, entity) => {
    const [primary, shadow] = await startSystems();
    const upstreams = withShadow(primary.url, shadow.url, { entity });
    await using gateway = await startGateway({ queues, role: "api", upstreams });
    const both: Pair = { gateway, primary, shadow, [Symbol.asyncDispose]: () => Promise.resolve() };
    const operator = newShadowOperator(gateway);
    const phone = newPhone(gateway);
    const [recordId, marker] = [tempId(), tempId().slice(9)];

    /** Has the next call be the last thing that a worker does. */
    async function killedDuring(method: string, act: () => Promise<unknown>): Promise<void> {
      await using victim = await startWorkerProcess(gateway);
      const count = shadow.requests.filter(isIts(method)).length;
      shadow.script(isIts(method), faults.hold(never, { effect: true }));
      await act();
      await shadow.received(isIts(method), count + 1);
      victim.signal("SIGKILL");
      await victim.exited;
    }

    const first = await startWorkerProcess(gateway);
    await added(gateway);
    shadow.script(isIts("POST"), faults.status(418));
    const parked = phone.add({ op: "create", entity: "mentor", recordId, data: { marker, n: 0 } });
    const held = phone.add({ op: "update", entity: "mentor", recordId, data: { n: 1 } });
    const last = phone.add({ op: "update", entity: "mentor", recordId, data: { n: 2 } });
    // The lane's own log goes on behind them.
    for (let n = 0; n < 30; n++) phone.add({ op: "create", recordId: tempId(), data: { n } });
    await phone.replay();
    await caughtUp(gateway);
    first.signal("SIGTERM");
    await first.exited;
    const all = [parked, held, last];
    expect(await openOf(gateway, all)).toEqual(["parked", "held behind 0", "held behind 0"]);

    const isOpaque = entity === opaque;
    await killedDuring("POST", async () => await operator.command(parked.id, { command: "retry" }));
    await killedDuring("PATCH", async () => {
      if (!isOpaque) return;
      // It is not sent again by itself: a person looks, and finds it.
      await expect.poll(async () => await openOf(gateway, all), { timeout: 30_000 }).toContain("parked");
      const ownId = (JSON.parse(shadow.records("mentors")[0] ?? "{}") as { id: number }).id;
      await operator.command(parked.id, { command: "applied", recordId: String(ownId) });
    });
    await using survivor = await gateway.another("worker");
    if (isOpaque) {
      await expect
        .poll(async () => await openOf(survivor, all), { timeout: 30_000 })
        .toEqual(["none", "parked", "held behind 1"]);
      await operator.command(held.id, { command: "applied" });
    }
    await released(survivor, all);
    expect(effectsOf(shadow, marker)).toEqual(["create mentors 0", "update mentors 1", "update mentors 2"]);
    await caughtUp(gateway);
    const systems = await bothHold(both);
    expect(systems.shadow).toEqual(systems.primary);
    await primary.stop();
    await shadow.stop();
  },
);
