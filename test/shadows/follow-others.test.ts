import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { added, bothHold, caughtUp, startPair, type Pair } from "./pair.ts";

/** Somebody changes a record in the primary without Tidegate. */
function changeAtPrimary({ primary }: Pair, path: string, change: object): void {
  const request = { method: "PATCH", path, headers: {}, body: Buffer.from(JSON.stringify(change)) };
  expect(primary.apply(request).status).toBe(200);
}

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test.each([
    ["with `follow`, what others changed in the primary reaches the shadow with the next change", true],
    ["without `follow`, a shadow gets what clients changed and no more", false],
  ])("%s", async (_, follow) => {
    await using pair = await startPair(queues, { shadow: { follow } });
    const { gateway, shadow } = pair;
    await added(gateway);
    const phone = newPhone(gateway);
    const [mentor, activity] = [tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
    phone.add({
      op: "create",
      recordId: activity,
      data: { minutes: 45, note: "x", room: { floor: 1, name: "a" } },
    });
    const [theMentor, created] = await phone.replay();
    const path = `/activities/${created?.recordId}`;
    // Seen when a phone's own change meets it …
    changeAtPrimary(pair, path, { mentor: theMentor?.recordId, note: null, room: { floor: 2 } });
    phone.add({ op: "update", recordId: activity, data: { minutes: 50 } });
    // … and when a phone's change is refused because of it.
    const [updated] = await phone.replay();
    changeAtPrimary(pair, path, { approved: true });
    phone.add({ op: "update", recordId: activity, baseVersion: updated?.version, data: { minutes: 55 } });
    expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
    await caughtUp(gateway);
    const held = await bothHold(pair);
    if (follow) return expect(held.shadow).toEqual(held.primary);
    const [text = ""] = shadow.records("activities");
    expect(JSON.parse(text)).toMatchObject({ minutes: 50, note: "x", room: { floor: 1, name: "a" } });
    expect(text).not.toContain("approved");
  });

  test("with `follow`, what others deleted in the primary is deleted in the shadow", async () => {
    await using pair = await startPair(queues, { shadow: { follow: true } });
    const { gateway, primary, shadow } = pair;
    await added(gateway);
    const phone = newPhone(gateway);
    const activity = tempId();
    phone.add({ op: "create", recordId: activity, data: { minutes: 45 } });
    const [created] = await phone.replay();
    const path = `/activities/${created?.recordId}`;
    primary.apply({ method: "DELETE", path, headers: {}, body: Buffer.alloc(0) });
    phone.add({ op: "update", recordId: activity, data: { minutes: 50 } });
    expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
    await caughtUp(gateway);
    expect(shadow.records("activities")).toEqual([]);
  });
});
