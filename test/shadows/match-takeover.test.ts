import { describe, expect, test } from "vitest";

import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { addMentors, creates, expectSame, hold, range, startMatching } from "./matched.ts";
import { caughtUp } from "./pair.ts";

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test("a worker that is killed while it lists has another one go on, and nothing is doubled", async () => {
    await using pair = await startMatching(queues, { shadow: { timeoutMs: 400 } });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, range(0, 10));
    await phone.replay();
    hold(shadow, range(0, 10));
    shadow.script({ method: "GET", path: /page=3/ }, faults.hang());
    const later = await pair.addShadow("api");
    await using victim = await startWorkerProcess(later);
    await shadow.received({ method: "GET", path: /page=3/ });
    victim.signal("SIGKILL");
    await victim.exited;
    const listed = "select 1 from shadow_listed";
    expect(await rowsOf(gateway.database, listed)).toHaveLength(6);
    expect(creates(shadow)).toEqual([]);
    const asked = shadow.requests.length;
    await later.another("worker");
    await caughtUp(later);
    expect(shadow.requests[asked]?.path).toMatch(/page=3/);
    expect(creates(shadow)).toEqual([]);
    await expectSame(pair);
  });

  test.each(["conditional", "lookup", "idempotency-key"])(
    "a worker that is killed in the middle of pairings leaves one effect each, by class %s",
    async (name) => {
      const entity = {
        create: { class: "lookup" },
        update: { class: name },
        reference: "/externalRef",
        lookup: "{path}?externalRef={tempId}",
      };
      await using pair = await startMatching(queues, { entity, shadow: { timeoutMs: 400 } });
      const { gateway, primary, shadow } = pair;
      const phone = newPhone(gateway);
      addMentors(phone, range(0, 10));
      await phone.replay();
      hold(shadow, range(0, 8));
      const gate = Promise.withResolvers<void>();
      shadow.script({ method: "PATCH" }, ...[0, 1, 2].map(() => faults.hold(gate.promise, { effect: true })));
      shadow.script({ method: "GET", path: /mentors\/\d+/ }, ...[0, 1].map(() => faults.loseReply()));
      const later = await pair.addShadow("api");
      await using victim = await startWorkerProcess(later);
      await shadow.received({ method: "PATCH" });
      victim.signal("SIGKILL");
      await victim.exited;
      gate.resolve();
      await later.another("worker");
      await caughtUp(later, 90_000);
      expect(shadow.records("mentors")).toHaveLength(primary.records("mentors").length);
      expect(creates(shadow)).toEqual(["mentors", "mentors"]);
      await expectSame(pair);
    },
  );
});
