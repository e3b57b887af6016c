import { describe, expect, test, vi } from "vitest";

import { queueBackends } from "../fixtures/redis.ts";
import { tempId } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { rowsOf } from "../replay/rows.ts";
import { newApp, registrationOf, startPushRig, type App, type PushRig } from "./rig.ts";

describe.each(queueBackends())("on %s", (queues) => {
  test("a sleeping app is woken once for a burst, and again for what comes after it has read", async () => {
    await using rig = await startPushRig({ queues });
    const app = newApp(rig.gateway);
    expect((await app.register()).status).toBe(200);
    await app.read();
    await rig.change({}, 20);
    await rig.server.taken(1);
    await rig.change({}, 20);
    await rig.change();
    await app.read();
    await rig.isAtRest(app.clientId);
    expect(rig.server.pushes.map(({ address }) => address)).toEqual([app.token]);
    await rig.change();
    await rig.server.taken(2);
    expect(rig.server.grants).toBe(1);
  });
});

/** Waits until the apps named have been woken, and tells who was by then. */
async function wokenWith(rig: PushRig, ...apps: App[]): Promise<string[]> {
  const woken = () => rig.server.pushes.map(({ address }) => address);
  await vi.waitFor(() => expect(woken()).toEqual(expect.arrayContaining(apps.map(({ token }) => token))), {
    timeout: 25_000,
    interval: 30,
  });
  return woken();
}

test("a client that reads within the delay is not woken, also when it doesn't say that it got the answer", async () => {
  await using rig = await startPushRig({ push: { delayMs: 4_000 } });
  const [reader, hasty, sleeper] = [newApp(rig.gateway), newApp(rig.gateway), newApp(rig.gateway)];
  for (const app of [reader, hasty, sleeper]) await app.register();
  await rig.change();
  await reader.read();
  await hasty.read({ confirm: false });
  expect(await wokenWith(rig, sleeper)).toEqual([sleeper.token]);
  await rig.isAtRest(reader.clientId);
  expect(rig.server.pushes).toHaveLength(1);
});

test("an app whose answer may not have arrived is reminded; one that came back with its cursor is not", async () => {
  await using rig = await startPushRig({ push: { reminderMs: 1_500 } });
  const [certain, hasty] = [newApp(rig.gateway), newApp(rig.gateway)];
  for (const app of [certain, hasty]) await app.register();
  await rig.change();
  await certain.read();
  await hasty.read({ confirm: false });
  await rig.isAtRest(certain.clientId);
  const before = rig.server.pushes.filter(({ address }) => address === certain.token).length;
  // It may have been woken for the change itself, where reading took longer than the delay.
  const first = rig.server.pushes.filter(({ address }) => address === hasty.token).length;
  await vi.waitFor(
    () => expect(rig.server.pushes.filter(({ address }) => address === hasty.token)).toHaveLength(first + 1),
    { timeout: 15_000 },
  );
  expect(rig.server.pushes.filter(({ address }) => address === certain.token)).toHaveLength(before);
  await hasty.read();
  await rig.isAtRest(hasty.clientId);
});

test("an app that was woken and does not read is reminded, each time after twice as long", async () => {
  await using rig = await startPushRig({ push: { reminderMs: 1_000 } });
  const app = newApp(rig.gateway);
  await app.register();
  await rig.change();
  await rig.server.taken(3);
  const [first = 0, second = 0, third = 0] = rig.server.calls.map(({ at }) => at);
  expect(second - first).toBeGreaterThan(900);
  expect(third - second).toBeGreaterThan(1_900);
  const ids = rig.server.pushes.map(({ body }) => JSON.stringify(body.message.token));
  expect(new Set(ids).size).toBe(1);
});

test("only what is in its scopes wakes a client: those of the token with which it last read", async () => {
  await using rig = await startPushRig();
  const oslo = newApp(rig.gateway, { sub: "ola", groups: ["oslo"] });
  const bergen = newApp(rig.gateway, { sub: "berit", groups: ["bergen"] });
  for (const app of [oslo, bergen]) await app.register();
  await rig.change({ group: "bergen" });
  expect(await wokenWith(rig, bergen)).toEqual([bergen.token]);
  // She moves: the old token's cursor is of no use, so she begins anew, and reads to the end.
  await bergen.read();
  const moved = rig.gateway.as({ sub: "berit", groups: ["oslo"] });
  const { status } = await moved.get(`/v1/snapshot?clientId=${bergen.clientId}`);
  expect(status).toBe(200);
  await vi.waitFor(
    async () =>
      expect(await registrationOf(rig.gateway, bergen.clientId)).toMatchObject({
        scopes: ["group:oslo", "org", "user:berit"],
      }),
    { timeout: 20_000, interval: 50 },
  );
  await rig.isAtRest(bergen.clientId);
  await rig.change({ group: "bergen" });
  await rig.change({ group: "oslo" });
  expect(await wokenWith(rig, oslo)).toHaveLength(3);
  expect(rig.server.pushes.filter(({ address }) => address === bergen.token)).toHaveLength(2);
}, 60_000);

test("an app is woken for the outcome of what it has uploaded", async () => {
  await using rig = await startPushRig();
  const app = newApp(rig.gateway);
  await app.register();
  const outbox = newOutbox(app.clientId);
  outbox.add({ op: "create", recordId: tempId(), data: { mentor: "nobody", group: "elsewhere" } });
  expect((await app.api.upload(outbox.batch())).status).toBe(200);
  expect(await wokenWith(rig, app)).toEqual([app.token]);
});

test("no client is woken more often within an hour than its budget, also by workers that were started since", async () => {
  await using rig = await startPushRig({ role: "api", push: { budget: { ios: 2 } } });
  const app = newApp(rig.gateway);
  await app.register({ service: "fcm", platform: "ios", token: app.token });
  let worker = await rig.gateway.another("worker");
  for (let n = 1; n <= 2; n++) {
    await rig.change();
    await rig.server.taken(n);
    await app.read();
    await rig.isAtRest(app.clientId);
    await worker.close();
    worker = await rig.gateway.another("worker");
  }
  await rig.change();
  await vi.waitFor(
    async () => {
      const row = await registrationOf(rig.gateway, app.clientId);
      expect(row?.wanted_position).not.toBeNull();
      // When the first of the two is an hour old.
      expect(row?.due_at?.getTime()).toBe((row?.sent_at[0]?.getTime() ?? 0) + 3_600_000);
    },
    { timeout: 20_000 },
  );
  expect(rig.server.calls).toHaveLength(2);
}, 60_000);

test("two workers wake each of many clients once", async () => {
  await using rig = await startPushRig();
  await rig.gateway.another("worker");
  const apps = Array.from({ length: 150 }, () => newApp(rig.gateway));
  await Promise.all(apps.map(async (app) => await app.register()));
  await rig.change();
  await rig.server.taken(150);
  await vi.waitFor(
    async () => {
      const rested = await rowsOf(
        rig.gateway.database,
        "select 1 from push_registration where claim_id is null and pushes = 1",
      );
      expect(rested).toHaveLength(150);
    },
    { timeout: 20_000, interval: 50 },
  );
  expect(rig.server.calls).toHaveLength(150);
}, 60_000);
