import { describe, expect, test, vi } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { spread } from "../fixtures/redis.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { startLater } from "./later.ts";
import {
  addMentors,
  creates,
  expectSame,
  hold,
  matching,
  memberOf,
  open,
  ownIdsOf,
  pages,
  range,
  startMatching,
} from "./matched.ts";
import { caughtUp, startSystems, withShadow } from "./pair.ts";
import { misfortune, numbersOf } from "./program.ts";

test.each(
  spread([
    [5, {}],
    [6, { links: true, total: true, cap: 4 }],
    [7, { ignored: true }],
  ] as const),
)(
  "on %s, what a shadow held before is paired and not doubled, and after random changes both hold the same (seed %i, %o)",
  { timeout: 120_000 },
  async (queues, seed, options) => {
    const config = { shadow: { timeoutMs: 300 } };
    await using pair = await startMatching(queues, config, { ...pages, ...options });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const before = addMentors(phone, range(0, 12));
    const activities = before.map((mentor, n) => {
      const recordId = tempId();
      phone.add({ op: "create", recordId, data: { mentor, others: before.slice(0, n % 3), n } });
      return recordId;
    });
    await phone.replay();
    hold(shadow, range(2, 20));
    const next = numbersOf(seed);
    const later = await pair.addShadow();
    misfortune(shadow, next, [faults.loseReply(), faults.status(503), faults.status(503, { effect: true })]);
    // Some that the shadow holds, and some that it does not, come by the log.
    const after = addMentors(phone, [...range(12, 16), ...range(30, 33)]);
    for (let n = 0; n < 60; n++) {
      const entity = next(2) === 0 ? "mentor" : "activity";
      const among = entity === "mentor" ? [...before, ...after] : activities;
      const mentor = [...before, ...after][next(before.length)];
      const data = { [`f${next(3)}`]: next(100), ...(next(3) === 0 && { mentor }) };
      phone.add({ op: "update", entity, recordId: among[next(among.length)] ?? "", data });
    }
    await phone.send({ wait: 0 });
    await phone.settled(60_000);
    await caughtUp(later);
    expect(creates(shadow).filter((collection) => collection === "mentors")).toHaveLength(2 + 3);
    await expectSame(pair, range(16, 20).map(memberOf));
  },
);

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test("a reference to a paired record names it by the shadow's own ID, also before the pairing's update is through", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [mentor = ""] = addMentors(phone, [1]);
    const activity = phone.add({ op: "create", recordId: tempId(), data: { mentor, n: 1 } });
    await phone.replay();
    hold(shadow, [0, 1]);
    const gate = Promise.withResolvers<void>();
    shadow.script({ method: "PATCH" }, faults.hold(gate.promise));
    const later = await pair.addShadow();
    await shadow.received({ method: "POST", path: "/activities" });
    expect(shadow.effects.filter(({ collection }) => collection === "mentors")).toEqual([]);
    gate.resolve();
    await caughtUp(later);
    const ownIds = await ownIdsOf(pair);
    expect(JSON.parse(shadow.records("activities")[0] ?? "{}")).toMatchObject({
      mentor: ownIds.get(mentor),
    });
    expect(ownIds.get(activity.recordId)).toBe("7003");
    expect(ownIds.get(mentor)).toBe("7002");
    await expectSame(pair, ["no. 0"]);
  });

  test("what has no value, or one that the shadow does not have, is created; numbers are their digits", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const values = [undefined, "", null, 17, "18", "9007199254740993", "none", true];
    const ids = values.map((memberNo) => {
      const recordId = tempId();
      phone.add({
        op: "create",
        entity: "mentor",
        recordId,
        data: { ...(memberNo !== undefined && { memberNo }) },
      });
      return recordId;
    });
    await phone.replay();
    shadow.seed("mentors", [
      '{"memberNo":""}',
      "{}",
      '{"memberNo":"17"}',
      '{"memberNo":18}',
      '{"memberNo":9007199254740993}',
      '{"memberNo":true}',
    ]);
    const later = await pair.addShadow();
    await caughtUp(later);
    expect(await open(gateway)).toEqual([]);
    const ownIds = await ownIdsOf(pair);
    const paired = ids.map((id) => Number(ownIds.get(id)) <= 7006);
    expect(paired).toEqual([false, false, false, true, true, true, false, false]);
  });

  test.each([
    ["update", 0, 2],
    ["create", 1, 1],
  ] as const)("with %s not enabled the rest is done", async (operation, updates, held) => {
    const disabled = { [operation]: { enabled: false } };
    await using pair = await startMatching(queues, { entity: disabled });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const ids = addMentors(phone, [1]);
    phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: { memberNo: "no. 5" } });
    await phone.replay();
    hold(shadow, [1]);
    const later = await pair.addShadow();
    await caughtUp(later);
    expect(await open(gateway)).toEqual([]);
    expect(shadow.records("mentors")).toHaveLength(held);
    expect(shadow.effects.filter(({ op }) => op === "update")).toHaveLength(updates);
    expect((await ownIdsOf(pair)).get(ids[0] ?? "")).toBe("7001");
  });

  test("a shadow that is away while it is listed delays neither the primary nor another shadow", async () => {
    const [primary, shadow] = await startSystems({ pages });
    const dead = await startScriptedUpstream({ pages });
    const config = { entity: matching, shadow: { timeoutMs: 60_000 } };
    hold(shadow, [0]);
    const release = Promise.withResolvers<void>();
    const hang: Fault = faults.hold(release.promise);
    const stop = dead.always({}, hang);
    const upstreams = {
      ...withShadow(primary.url, shadow.url, config),
      dead: (withShadow(primary.url, dead.url, config) as { next: object }).next,
    };
    // The first to be looked at is the one that is away.
    await using gateway = await startGateway({
      queues,
      upstreams: Object.fromEntries(Object.entries(upstreams).toReversed()),
    });
    await dead.received({ method: "GET" });
    const phone = newPhone(gateway);
    addMentors(phone, [0, 1, 2]);
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied", "applied"]);
    await caughtUp(gateway);
    expect(shadow.records("mentors")).toHaveLength(3);
    expect(dead.effects).toEqual([]);
    const lag = /tidegate_shadow_lag_seconds\{tenant="ours",upstream="dead"\} (\S+)/;
    const metrics = async (): Promise<string> => await (await fetch(`${gateway.url}/metrics`)).text();
    // The figures are looked up every few seconds.
    await expect
      .poll(async () => Number(lag.exec(await metrics())?.[1] ?? 0), { timeout: 20_000, interval: 500 })
      .toBeGreaterThan(0);
    stop();
    release.resolve();
    await vi.waitFor(() => expect(dead.records("mentors")).toHaveLength(3), {
      timeout: 60_000,
      interval: 50,
    });
    for (const system of [primary, shadow, dead]) await system.stop();
  });

  test("a `match` that comes after the shadow pairs nothing, and says so", async () => {
    await using pair = await startLater(queues, {}, { pages });
    const { gateway, primary, shadow } = pair;
    const phone = newPhone(gateway);
    hold(shadow, [1]);
    const later = await pair.addShadow();
    await caughtUp(later);
    await later.close();
    const upstreams = withShadow(primary.url, shadow.url, { entity: matching });
    const { redisUrl } = gateway.environment;
    await using latest = await startGateway({
      queues,
      database: gateway.database,
      upstreams,
      ...(redisUrl !== undefined && { redisUrl }),
    });
    await vi.waitFor(() => expect(latest.log.join("\n")).toContain("without this `match`"), {
      timeout: 20_000,
    });
    addMentors(phone, [1]);
    await phone.replay();
    await caughtUp(latest);
    expect(shadow.records("mentors")).toHaveLength(2);
  });
});
