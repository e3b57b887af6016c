import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { newOperator, type Operator } from "./operator.ts";
import { bodyHas } from "./parked.ts";
import { linesOf, newPhone, toLine } from "./phone.ts";
import { attemptsOf, rowsOf } from "./rows.ts";

describe(
  "a mutation of which nobody knows whether it took effect, sent again by a person",
  { timeout: 60_000 },
  () => {
    let upstream: ScriptedUpstream;
    let gateway: TestGateway;
    let operator: Operator;
    beforeAll(async () => {
      upstream = await startScriptedUpstream(storeOptions);
      gateway = await startGateway({ upstreams: capabilities(upstream.url, { timeoutMs: 2_000 }) });
      operator = newOperator(gateway);
    });
    afterAll(async () => {
      await gateway?.close();
      await upstream?.stop();
    });

    async function parkUnclear(entity: CapabilityClass) {
      const [phone, marker] = [newPhone(gateway), randomUUID()];
      upstream.script(bodyHas(marker), faults.loseReply());
      // Nothing can be found out for as long as this lasts.
      const stopSearch = upstream.always({ method: "GET" }, faults.status(418));
      const create = phone.add({ op: "create", entity, recordId: tempId(), data: { marker } });
      await phone.send({ wait: 0 });
      await expect
        .poll(async () => linesOf(await phone.outcomes())[0], { timeout: 20_000 })
        .toMatch(/^parked/);
      stopSearch();
      const effects = () => upstream.effects.filter(({ record }) => record?.includes(marker)).length;
      expect(effects()).toBe(1);
      return { phone, marker, create, effects };
    }

    test("is looked for first where the upstream can tell", async () => {
      const { phone, create, effects } = await parkUnclear("lookup");
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(1);
    });

    test("is sent again, once, where only the person can tell", async () => {
      const { phone, create, effects } = await parkUnclear("opaque");
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(2);
    });

    test("starts afresh: a refusal that follows is retried, and not parked as unclear", async () => {
      const { phone, marker, create, effects } = await parkUnclear("opaque");
      upstream.script(bodyHas(marker), faults.status(429), faults.status(429));
      await operator.command(create.id, { command: "retry" });
      await operator.done(create.id);
      expect(linesOf(await phone.settled())).toEqual(["applied"]);
      expect(effects()).toBe(2);
    });

    test.each(["opaque", "lookup"] as const)(
      "is not sent a second time by the same command when its owner is gone before the answer (%s)",
      async (entity) => {
        const { phone, marker, create, effects } = await parkUnclear(entity);
        // Only what lets the lookup find nothing makes it send again.
        const empty = upstream.always({ method: "GET" }, ({ send }) => send({ status: 200, body: "[]" }));
        const gate = Promise.withResolvers<void>();
        upstream.script(bodyHas(marker), faults.hold(gate.promise, { effect: true }));
        const sent = upstream.requests.filter(bodyHas(marker)).length;
        await operator.command(create.id, { command: "retry" });
        await upstream.received(bodyHas(marker), sent + 1);
        empty();
        // Another owner had it meanwhile, and died too.
        await rowsOf(
          gateway.database,
          "update lane set epoch = epoch + 1, lease_until = now(), due_at = now() where lane_id = $1",
          [phone.clientId],
        );
        await newOperator(gateway).now(phone.clientId);
        await expect
          .poll(async () => linesOf(await phone.outcomes())[0], { timeout: 20_000 })
          .toBe("parked upstream-unclear");
        gate.resolve();
        const stale = async () =>
          (await attemptsOf(gateway.database, create.id)).map((one) => one.disposition);
        await expect.poll(stale).toContain("stale");
        expect(toLine((await phone.outcomes())[0]!)).toBe("parked upstream-unclear");
        expect(effects()).toBe(2);
        expect(upstream.requests.filter(bodyHas(marker))).toHaveLength(sent + 1);
      },
    );
  },
);
