import { expect, test, vi } from "vitest";

import { classes } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "../replay/capabilities.ts";
import { linesOf, resultOf, type Result } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { after, before, newKeepingPhone, type KeepingPhone } from "./phone.ts";
import {
  backUp,
  copy,
  newDataDir,
  openAddress,
  restore,
  startDatabase,
  startStandby,
  type Address,
  type Server,
} from "./servers.ts";
import { expectNothingDrained, expectRefusal, expectServing, recover, useServers } from "./world.ts";

const { newServer, track } = useServers();

interface World extends AsyncDisposable {
  upstream: ScriptedUpstream;
  server: Server;
  /** Where gateways look for their database: at `server`, until it points to another. */
  address: Address;
  startGateway: () => Promise<TestGateway>;
}

/** An upstream of all capability classes, and a database that another can take the place of. */
async function startWorld(): Promise<World> {
  const upstream = await startScriptedUpstream(storeOptions);
  const server = await newServer();
  const address = await openAddress();
  address.pointTo(server);
  const upstreams = capabilities(upstream.url);
  return {
    upstream,
    server,
    address,
    startGateway: async () => await startGateway({ upstreams, database: address.of(server) }),
    async [Symbol.asyncDispose]() {
      await address[Symbol.asyncDispose]();
      await upstream.stop();
    },
  };
}

const slow = { timeout: 90_000 };

test(
  "a restored backup is recognised at the start, and after the recovery everything is there once",
  slow,
  async () => {
    await using world = await startWorld();
    const { upstream, server: lost, address } = world;
    const first = await world.startGateway();
    const backup = await backUp(lost);
    const phones = classes.map((name) => newKeepingPhone(first, name));
    const names = await Promise.all(phones.map(before));
    await asSuperuser(lost.superuserUrl, async (client) => {
      await client.query("select pg_create_restore_point('earlier')");
    });
    const told = await Promise.all(phones.map(async (phone, i) => await after(phone, names[i]!)));
    const cursor = await cursorOf(first);
    await first.close();
    await lost.stop();

    const restored = track(await restore(backup, lost, "earlier"));
    address.pointTo(restored);
    await using gateway = await world.startGateway();
    await expectRefusal(gateway);
    const { requests } = upstream;
    const requestsBefore = requests.length;
    for (const phone of phones) expect(await phone.catchUp(gateway)).toBe(2);
    await expectNothingDrained(gateway, phones.length);
    expect(requests).toHaveLength(requestsBefore);

    expect(await recover(restored)).toContain("Nothing was changed.");
    await expectRefusal(gateway);
    expect(await recover(restored, "--yes")).toContain("Recovered at");
    await expectServing(gateway);
    for (const [i, phone] of phones.entries()) await expectOnce(gateway, upstream, phone, told[i]!);
    expect((await gateway.as().get(`/v1/changes?cursor=${cursor}`)).status).toBe(410);
  },
);

test("a standby that was behind is recognised by a running gateway once it is promoted", slow, async () => {
  await using world = await startWorld();
  const { upstream, server: primary, address } = world;
  await using gateway = await world.startGateway();
  const standby = track(await startStandby(primary));
  const phones = classes.map((name) => newKeepingPhone(gateway, name));
  const names = await Promise.all(phones.map(before));
  await standby.hasCaughtUp();
  await standby.stopFollowing();
  const told = await Promise.all(phones.map(async (phone, i) => await after(phone, names[i]!)));
  const epoch = (await gateway.as().get("/v1/capabilities")).body.epoch as string;
  const cursor = await cursorOf(gateway);

  await primary.kill();
  await standby.promote();
  address.pointTo(standby);
  await vi.waitFor(async () => await expectRefusal(gateway), { timeout: 20_000, interval: 100 });
  const requestsBefore = upstream.requests.length;
  for (const phone of phones) expect(await phone.catchUp(gateway)).toBe(2);
  await expectNothingDrained(gateway, phones.length);
  expect(upstream.requests).toHaveLength(requestsBefore);

  await recover(standby, "--yes");
  expect((await gateway.as().get(`/v1/changes?cursor=${cursor}`)).status).toBe(410);
  await expectServing(gateway);
  expect((await gateway.as().get("/v1/capabilities")).body.epoch).not.toBe(epoch);
  for (const [i, phone] of phones.entries()) await expectOnce(gateway, upstream, phone, told[i]!);
});

test("a restart and a crash are not taken for a restore", slow, async () => {
  await using world = await startWorld();
  const { server: first, address } = world;
  await using gateway = await world.startGateway();
  const phone = newKeepingPhone(gateway, "upsert");
  await before(phone);
  let running = first;
  for (const end of ["stop", "kill"] as const) {
    await running[end]();
    running = await startDatabase(first.dataDir);
    address.pointTo(running);
    phone.add({ op: "create", recordId: tempId() });
    await expectServing(gateway);
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
  }
  expect(gateway.log.join("\n")).not.toContain("recovery-needed");
  expect(await recover(running, "--yes")).toContain("nothing is to be recovered");
  await running.stop();
});

test("a snapshot of the disk that is put back is noticed by who has seen more of it", slow, async () => {
  await using world = await startWorld();
  const { upstream, server: first, address } = world;
  await using gateway = await world.startGateway();
  const phone = newKeepingPhone(gateway, "conditional");
  const names = await before(phone);
  await first.stop();
  const snapshot = await newDataDir();
  await copy(first, snapshot);
  const second = await startDatabase(first.dataDir);
  // A day's log, not a moment's: the one that is put back must not have written as much before anybody looks.
  await asSuperuser(
    second.superuserUrl,
    async (client) => void (await client.query("select pg_switch_wal()")),
  );
  address.pointTo(second);
  await expectServing(gateway);
  const told = await after(phone, names);
  await gateway.as().get("/health/ready");
  await second.stop();

  const putBack = track(await startDatabase(snapshot));
  address.pointTo(putBack);
  await vi.waitFor(async () => await expectRefusal(gateway), { timeout: 20_000, interval: 100 });
  await phone.catchUp(gateway);
  await using another = await gateway.another();
  await expectRefusal(another);
  await expectNothingDrained(gateway, 1);
  await recover(putBack, "--yes");
  await expectServing(gateway);
  await expectServing(another);
  await expectOnce(gateway, upstream, phone, told);
});

async function cursorOf(gateway: TestGateway): Promise<string> {
  return (await gateway.as().get("/v1/changes")).body.cursor as string;
}

/** These send an update again as it is; the record ends in the same state. */
const repeated = new Set<string>(["upsert", "client-id"]);

/** What the phone did is at the upstream once, under the server IDs that it was told before. */
async function expectOnce(
  gateway: TestGateway,
  upstream: ScriptedUpstream,
  phone: KeepingPhone,
  told: Result[],
): Promise<void> {
  const { entity } = phone;
  const effects = upstream.effects.filter(({ collection }) => collection === entity);
  const count = (op: string): number => effects.filter((effect) => effect.op === op).length;
  const lost = phone.kept.slice(2);
  const results = await settled(gateway, phone);
  const lines = lost.flatMap((mutation) => linesOf([resultOf(results, mutation)]));
  if (entity === "opaque") {
    const parked = "parked upstream-unclear";
    expect(lines).toEqual([parked, "pending", parked, "pending", parked]);
    const rows =
      "select possibly_sent, last_sent_at is not null as has_time from delivery where client_id = $1 and state = 'parked'";
    expect(await rowsOf(gateway.database, rows, [phone.clientId])).toEqual(
      Array.from({ length: 3 }, () => ({ possibly_sent: true, has_time: true })),
    );
  } else {
    expect(lines, entity).toEqual(lost.map(() => "applied"));
    const ids = (of: Result[]) => lost.map((mutation) => resultOf(of, mutation).recordId);
    expect(ids(results)).toEqual(ids(told));
    expect(
      await rowsOf(gateway.database, "select 1 from delivery where client_id = $1", [phone.clientId]),
    ).toEqual([]);
  }
  expect([count("create"), count("delete")], entity).toEqual([3, 1]);
  if (!repeated.has(entity)) expect(count("update"), entity).toBe(3);
  const records = upstream.records(entity).map((text) => JSON.parse(text) as Record<string, unknown>);
  expect(records, entity).toMatchObject([
    { name: "kept", minutes: 50 },
    { name: "lost", minutes: 51 },
  ]);
}

async function settled(gateway: TestGateway, { clientId, kept, entity }: KeepingPhone): Promise<Result[]> {
  const look = async (): Promise<Result[]> => {
    const { body } = await gateway.as().get(`/v1/mutations?clientId=${clientId}&limit=1000`);
    const results = body.results as Result[];
    const open = results.filter(({ status, blockedBy }) => status === "pending" && !blockedBy);
    expect([results.length, open], entity).toEqual([kept.length, []]);
    return results;
  };
  return await vi.waitFor(look, { timeout: 30_000, interval: 100 });
}
