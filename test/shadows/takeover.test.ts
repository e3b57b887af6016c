import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { bothHold, caughtUp, startSystems, withShadow, type Pair } from "./pair.ts";

const never = new Promise<void>(() => undefined);

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test("a worker that is killed between a shadow's calls and their answers leaves one effect each, in order", async () => {
    const [primary, shadow] = await startSystems();
    await using gateway = await startGateway({
      queues,
      role: "api",
      upstreams: withShadow(primary.url, shadow.url, { shadow: { timeoutMs: 1_000 } }),
    });
    const both: Pair = { gateway, primary, shadow, [Symbol.asyncDispose]: () => Promise.resolve() };
    await using victim = await startWorkerProcess(gateway);
    const phone = newPhone(gateway);
    shadow.script(
      { method: "POST" },
      ...Array.from({ length: 6 }, () => faults.hold(never, { effect: true })),
    );
    const records = Array.from({ length: 20 }, () => tempId());
    for (const [n, recordId] of records.entries()) phone.add({ op: "create", recordId, data: { n } });
    for (const recordId of records) phone.add({ op: "update", recordId, data: { later: true } });
    expect(linesOf(await phone.replay())).toEqual(Array.from({ length: 40 }, () => "applied"));
    await shadow.received({ method: "POST" }, 6);
    victim.signal("SIGKILL");
    await victim.exited;
    await gateway.another("worker");
    await caughtUp(gateway);
    const held = await bothHold(both);
    expect(held.shadow).toEqual(held.primary);
    expect(shadow.effects.filter(({ op }) => op === "create")).toHaveLength(20);
    expect(await rowsOf(gateway.database, "select * from delivery")).toEqual([]);
    await primary.stop();
    await shadow.stop();
  });
});
