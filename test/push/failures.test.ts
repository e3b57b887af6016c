import { describe, expect, test, vi } from "vitest";

import { queueBackends } from "../fixtures/redis.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { rowsOf } from "../replay/rows.ts";
import { fcmError } from "./push-server.ts";
import { newApp, registrationOf, startPushRig, type App, type PushRig } from "./rig.ts";

async function registered(rig: PushRig, count: number): Promise<App[]> {
  const apps = Array.from({ length: count }, () => newApp(rig.gateway));
  await Promise.all(apps.map(async (app) => await app.register()));
  return apps;
}

const addressesOf = (rig: PushRig): string[] => rig.server.pushes.map(({ address }) => address);
const sorted = (apps: App[]): string[] => apps.map(({ token }) => token).toSorted();

describe.each(queueBackends())("on %s", (queues) => {
  test("a worker that is killed between claiming a push and sending it keeps it back for the time of a lease", async () => {
    await using rig = await startPushRig({ queues, role: "api", push: { timeoutMs: 1_000 } });
    const apps = await registered(rig, 3);
    await using victim = await startWorkerProcess(rig.gateway);
    // It has claimed, and waits for its access token.
    const never = new Promise<void>(() => undefined);
    rig.server.grantsFrom = never;
    await rig.change().catch(() => undefined);
    await vi.waitFor(() => expect(rig.server.asked).toBeGreaterThan(0), 25_000);
    victim.signal("SIGKILL");
    await victim.exited;
    rig.server.grantsFrom = Promise.resolve();
    expect(rig.server.calls).toEqual([]);
    await rig.gateway.another("worker");
    await rig.server.taken(3);
    expect(addressesOf(rig).toSorted()).toEqual(sorted(apps));
  }, 120_000);
});

test("a dead registration is removed; one that is wrong for another reason is not", async () => {
  await using rig = await startPushRig();
  const [dead, alive] = (await registered(rig, 2)) as [App, App];
  rig.server.unregistered.add(dead.token);
  await rig.change();
  await rig.server.taken(1);
  await vi.waitFor(
    async () => expect(await registrationOf(rig.gateway, dead.clientId)).toBeUndefined(),
    20_000,
  );
  const audiences = "select 1 from push_audience where client_id = $1";
  expect(await rowsOf(rig.gateway.database, audiences, [dead.clientId])).toEqual([]);
  expect(addressesOf(rig)).toEqual([alive.token]);
  await alive.read();
  // As when the project's ID is wrong: then every answer is this one.
  rig.server.script(fcmError(404, "NOT_FOUND"));
  await rig.change();
  await vi.waitFor(() => expect(rig.server.calls).toHaveLength(3), 20_000);
  await vi.waitFor(async () => {
    expect(await registrationOf(rig.gateway, alive.clientId)).toMatchObject({ claim_id: null, failures: 1 });
    const { body } = await rig.gateway.asOps("viewer").get("/ops/v1/tenants/ours/push");
    expect(body.services[0]).toMatchObject({
      failures: 1,
      problem: expect.stringContaining("refused: it answered 404"),
    });
  }, 20_000);
  const metrics = await (await fetch(`${rig.gateway.url}/metrics`)).text();
  expect(metrics).toMatch(/tidegate_push_registrations_removed_total\{[^}]*reason="unregistered"\} 1/);
  expect(metrics).toMatch(/tidegate_pushes_failed_total\{[^}]*reason="refused"\} 1/);
  expect(rig.gateway.log.join("")).not.toMatch(/token-|access-\d|eyJ/);
}, 60_000);

test.each(["the same token", "another token"])(
  "a client that registers %s while its old registration is found dead stays registered",
  async (which) => {
    await using rig = await startPushRig();
    const app = newApp(rig.gateway);
    await app.register();
    const [called, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    rig.server.script(async (call) => {
      called.resolve();
      await answer.promise;
      await fcmError(404, "UNREGISTERED")(call);
    });
    await rig.change();
    await called.promise;
    const token = which === "another token" ? `${app.token}-new` : app.token;
    await app.register({ service: "fcm", platform: "android", token });
    answer.resolve();
    // It is woken by the new one, once the claim of the old one is over.
    await vi.waitFor(() => expect(addressesOf(rig)).toEqual([token]), 25_000);
    expect(await registrationOf(rig.gateway, app.clientId)).toBeDefined();
  },
  60_000,
);

test("a service that asks for time is left alone for it, by everybody, and nothing is lost", async () => {
  await using rig = await startPushRig();
  const apps = await registered(rig, 1);
  rig.server.script(fcmError(503, "UNAVAILABLE", { headers: { "retry-after": "4" } }));
  await rig.change();
  await vi.waitFor(() => expect(rig.server.calls).toHaveLength(1), 20_000);
  apps.push(...(await registered(rig, 5)));
  await rig.change();
  await vi.waitFor(() => expect(addressesOf(rig).toSorted()).toEqual(sorted(apps)), {
    timeout: 40_000,
    interval: 50,
  });
  const [first = 0, second = 0] = rig.server.calls.map(({ at }) => at);
  expect(second - first).toBeGreaterThan(3_900);
}, 60_000);

test("a service that is down costs a call now and then, and what failed takes nothing from the budget", async () => {
  await using rig = await startPushRig({ push: { budget: { android: 1 } } });
  const apps = await registered(rig, 12);
  rig.server.always = fcmError(500, "INTERNAL");
  await rig.change();
  await vi.waitFor(() => expect(rig.server.calls.length).toBeGreaterThanOrEqual(14), { timeout: 30_000 });
  const times = rig.server.calls.map(({ at }) => at);
  // All that were due together, and after that one at a time.
  expect((times[12] ?? 0) - (times[11] ?? 0)).toBeGreaterThan(900);
  expect((times[13] ?? 0) - (times[12] ?? 0)).toBeGreaterThan(1_900);
  rig.server.always = undefined;
  await vi.waitFor(() => expect(addressesOf(rig).toSorted()).toEqual(sorted(apps)), {
    timeout: 60_000,
    interval: 50,
  });
}, 120_000);

test.each([
  ["everything that the queue knew", "truncate bullmq.job, bullmq.dedup, bullmq.dedup_next cascade"],
  ["every job", "delete from bullmq.job"],
])(
  "%s may be lost: the next look finds what is due",
  async (_case, statement) => {
    await using rig = await startPushRig();
    const [app] = (await registered(rig, 1)) as [App];
    await rig.change();
    await rig.server.taken(1);
    await rowsOf(rig.gateway.database, statement);
    await app.read();
    await rig.change();
    await rig.server.taken(2);
  },
  60_000,
);
