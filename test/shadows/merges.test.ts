import { expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { added, caughtUp, storeOptions, withShadow } from "./pair.ts";

test(
  "a shadow gets what was merged: what the phone touched, and nothing of a conflict",
  { timeout: 120_000 },
  async () => {
    await using primary = await startScriptedUpstream(storeOptions);
    await using shadow = await startScriptedUpstream(storeOptions);
    const upstreams = withShadow(primary.url, shadow.url) as {
      crm: { entities: { activity: { conflict?: string } } };
    };
    upstreams.crm.entities.activity.conflict = "merge";
    await using gateway = await startGateway({ upstreams });
    await added(gateway);
    const [phone, other] = [newPhone(gateway), newPhone(gateway)];
    const recordId = tempId();
    phone.add({ op: "create", recordId, data: { minutes: 45, note: "n", room: { floor: 1, name: "a" } } });
    const [created] = await phone.replay();
    const { recordId: serverId = "", version: baseVersion } = created!;
    other.add({ op: "update", recordId: serverId, data: { note: "other", room: { floor: 2 } } });
    expect(linesOf(await other.replay())).toEqual(["applied"]);
    primary.script({ method: "PATCH" }, faults.loseReply());
    const update = { op: "update", recordId: serverId, baseVersion } as const;
    phone.add({
      ...update,
      base: { minutes: 45, note: "n", room: { name: "a", floor: 1 } },
      data: { minutes: 50, note: "n", room: { name: "b", floor: 1 } },
    });
    phone.add({ ...update, base: { minutes: 50, note: "n" }, data: { minutes: 55, note: "mine" } });
    expect(linesOf(await phone.replay())).toEqual(["applied", "conflict upstream-conflict"]);
    await caughtUp(gateway);
    for (const { records } of [primary, shadow]) {
      const [text = "{}"] = records("activities");
      expect(JSON.parse(text)).toMatchObject({ minutes: 50, note: "other", room: { floor: 2, name: "b" } });
    }
  },
);
