import { describe, expect, test, vi } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { startLater } from "./later.ts";
import { bothHold, caughtUp, type Pair } from "./pair.ts";

const lookup = {
  create: { class: "lookup" },
  reference: "/externalRef",
  lookup: "{path}?externalRef={tempId}",
};

/** Mentors of mentors, with a circle among them, activities of theirs, and some that are gone or were changed. */
async function live(phone: Phone, rounds: number): Promise<void> {
  const mentors = Array.from({ length: rounds }, () => tempId());
  for (const [n, recordId] of mentors.entries()) {
    const mentor = mentors[n - 1];
    phone.add({
      op: "create",
      entity: "mentor",
      recordId,
      data: { name: `m${n}`, ...(mentor && { mentor }) },
    });
    phone.add({
      op: "create",
      recordId: tempId(),
      data: { mentor: recordId, others: mentors.slice(0, n), n },
    });
  }
  phone.add({
    op: "update",
    entity: "mentor",
    recordId: mentors[0] ?? "",
    data: { mentor: mentors.at(-1), name: "first" },
  });
  const gone = tempId();
  phone.add({ op: "create", recordId: gone, data: { n: -1 } });
  phone.add({ op: "delete", recordId: gone });
  await phone.send({ wait: 0 });
  await phone.settled(60_000);
}

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test("a shadow that is added later gets all that exists, referenced ones first, and follows from there", async () => {
    await using pair = await startLater(queues, { entity: lookup });
    const { gateway, primary, shadow } = pair;
    const phone = newPhone(gateway);
    await live(phone, 8);
    // One that no client ever created: it came up when somebody changed it.
    primary.seed("mentors", ['{"id":900,"name":"old"}']);
    phone.add({ op: "update", entity: "mentor", recordId: "900", data: { name: "older" } });
    phone.add({ op: "create", recordId: tempId(), data: { mentor: "900" } });
    await phone.replay();
    const busy = newPhone(gateway);
    const later = await pair.addShadow();
    const during = live(busy, 8);
    await caughtUp(later);
    await during;
    await live(phone, 3);
    phone.add({ op: "update", entity: "mentor", recordId: "900", data: { name: "oldest" } });
    await phone.replay();
    await caughtUp(later);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(await rowsOf(gateway.database, "select * from delivery")).toEqual([]);
    const names = shadow.records("mentors").map((text) => (JSON.parse(text) as { name: string }).name);
    expect(names).toHaveLength(primary.records("mentors").length);
    for (const text of [...shadow.records("mentors"), ...shadow.records("activities")])
      expect((JSON.parse(text) as { externalRef: string }).externalRef).toMatch(/^urn:uuid:/);
  });
});

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test("a worker that is killed while it seeds has another one go on, without a gap or a double", async () => {
    await using pair = await startLater(queues, { entity: lookup, shadow: { timeoutMs: 400 } });
    const { gateway, primary, shadow } = pair;
    await live(newPhone(gateway), 12);
    const gate = Promise.withResolvers<void>();
    shadow.script(
      { method: "POST" },
      ...[0, 1, 2].map(() => okay),
      ...[0, 1, 2, 3].map(() => faults.hold(gate.promise, { effect: true })),
    );
    const later = await pair.addShadow("api");
    await using victim = await startWorkerProcess(later);
    await shadow.received({ method: "POST" }, 5);
    victim.signal("SIGKILL");
    await victim.exited;
    gate.resolve();
    await later.another("worker");
    await caughtUp(later, 90_000);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(shadow.records("activities")).toHaveLength(primary.records("activities").length);
    expect(shadow.records("mentors")).toHaveLength(primary.records("mentors").length);
    expect(await rowsOf(gateway.database, "select * from delivery")).toEqual([]);
  });

  test("a process that does not know of the shadow logs for it all the same", async () => {
    await using pair = await startLater(queues, {});
    const { gateway } = pair;
    const phone = newPhone(gateway);
    await live(phone, 2);
    await pair.addShadow();
    const shadows = async (): Promise<unknown[]> => await rowsOf(gateway.database, "select 1 from shadow");
    await vi.waitFor(async () => expect(await shadows()).toHaveLength(1), { timeout: 20_000 });
    // Both drain the clients' lanes now, and only one of them was told of the shadow.
    const phones = Array.from({ length: 6 }, () => newPhone(gateway));
    await Promise.all(phones.map(async (one) => await live(one, 2)));
    await caughtUp(gateway);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
  });
});

const okay: Parameters<Pair["shadow"]["script"]>[1] = ({ apply, send }) => send(apply());
