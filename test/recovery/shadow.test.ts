import { expect, test, vi } from "vitest";

import { classes } from "../fixtures/capability-classes.ts";
import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator } from "../shadows/open.ts";
import { caughtUp } from "../shadows/pair.ts";
import { backUp, openAddress, restore, startStandby } from "./servers.ts";
import { expectOnce, expectSame, newCrowd, startSystems, type Systems } from "./shadow-crowd.ts";
import { expectNothingDrained, expectRefusal, expectServing, recover, useServers } from "./world.ts";

const { newServer, track } = useServers();
const slow = { timeout: 120_000 };
const knowing = classes.filter((name) => name !== "opaque");

test(
  "after a restore a shadow holds what its primary holds, once, whoever sends again first and whatever it had missed",
  slow,
  async () => {
    await using systems = await startSystems();
    const { shadow, upstreams } = systems;
    await using address = await openAddress();
    const lost = await newServer();
    address.pointTo(lost);
    const first = await startGateway({ upstreams: upstreams(), database: address.of(lost) });
    const backup = await backUp(lost);
    const crowd = newCrowd(first, classes);
    await crowd.begin();
    await caughtUp(first);
    await asSuperuser(lost.superuserUrl, async (client) => {
      await client.query("select pg_create_restore_point('earlier')");
    });
    await crowd.goOn();
    await caughtUp(first);
    expectSame(systems, await namesIn(first), knowing);
    await shadow.stop();
    await crowd.goOnUnseen();
    await first.close();
    await lost.stop();
    await shadow.start();

    const restored = track(await restore(backup, lost, "earlier"));
    address.pointTo(restored);
    await using gateway = await startGateway({ upstreams: upstreams(), database: address.of(restored) });
    await expectRefusal(gateway);
    await expectNothingBefore(systems, gateway, async () => await crowd.others.catchUp(gateway));
    await recover(restored, "--yes");
    await expectServing(gateway);
    await crowd.others.settled(gateway);
    await crowd.owners.catchUp(gateway);
    await crowd.owners.settled(gateway);
    await caughtUp(gateway);
    expectSame(systems, await namesIn(gateway), knowing);
    expectOnce(systems, knowing);
    await releaseOpaque(systems, gateway);
    expectSame(systems, await namesIn(gateway), classes);
    expectOnce(systems, classes);
  },
);

test(
  "a shadow that is newer than the moment to which the database is put back is added again, and nothing in it is doubled",
  slow,
  async () => {
    await using systems = await startSystems();
    const { shadow, upstreams } = systems;
    await using address = await openAddress();
    const primary = await newServer();
    address.pointTo(primary);
    const first = await startGateway({ upstreams: { crm: upstreams().crm }, database: address.of(primary) });
    const standby = track(await startStandby(primary));
    const crowd = newCrowd(first, knowing);
    await crowd.begin();
    await standby.hasCaughtUp();
    await standby.stopFollowing();
    await crowd.goOn();
    await first.close();
    await using gateway = await startGateway({ upstreams: upstreams(), database: address.of(primary) });
    await caughtUp(gateway);
    expectSame(systems, await namesIn(gateway), knowing);
    await shadow.stop();
    await crowd.goOnUnseen(gateway);

    await primary.kill();
    await standby.promote();
    address.pointTo(standby);
    await vi.waitFor(async () => await expectRefusal(gateway), { timeout: 20_000, interval: 100 });
    // What was in hand when the database went away might reach the shadow, as it would have without that.
    await shadow.start();
    await expectNothingBefore(systems, gateway, async () => await crowd.others.catchUp(gateway));
    await recover(standby, "--yes");
    await expectServing(gateway);
    await crowd.others.settled(gateway);
    await crowd.owners.catchUp(gateway);
    await crowd.owners.settled(gateway);
    await caughtUp(gateway);
    expectSame(systems, await namesIn(gateway), knowing);
    expectOnce(systems, knowing);
  },
);

/** Uploads are taken, and neither system hears of it, nor of a shadow that is to be seeded. */
async function expectNothingBefore(
  { primary, shadow }: Systems,
  gateway: TestGateway,
  upload: () => Promise<number>,
): Promise<void> {
  const before = [primary.requests.length, shadow.requests.length];
  const lanes = await upload();
  await expectNothingDrained(gateway, lanes);
  expect([primary.requests.length, shadow.requests.length]).toEqual(before);
}

type Names = Map<string, string>;

/** What the primary calls the shadow's records. */
async function namesIn({ database }: TestGateway): Promise<Names> {
  const rows = await rowsOf<{ entity: string; server_id: string; own_id: string }>(
    database,
    "select * from shadow_record where not deleted",
  );
  return new Map(rows.map((row) => [`${row.entity}/${row.own_id}`, row.server_id]));
}

interface Parked {
  mutation_id: string;
  op: string;
  record_key: string;
  possibly_sent: boolean;
  has_time: boolean;
  code: string;
}

/** What only a person can tell is parked, and says that it may have been sent. */
async function parkedIn({ database }: TestGateway): Promise<Parked[]> {
  return await rowsOf<Parked>(
    database,
    `select *, last_sent_at is not null as has_time, problem->>'code' as code from delivery
     where state = 'parked' order by seq`,
  );
}

/** A person looks for each parked change's record in the shadow, or has it sent, until nothing is parked. */
async function releaseOpaque({ primary, shadow }: Systems, gateway: TestGateway): Promise<void> {
  const operator = newShadowOperator(gateway);
  let parked = await parkedIn(gateway);
  expect(parked.length).toBeGreaterThan(3);
  for (; parked[0]; parked = await parkedIn(gateway)) {
    const [{ mutation_id: id, op, record_key: key, ...evidence }] = parked;
    expect(evidence).toMatchObject({ possibly_sent: true, has_time: true, code: "upstream-unclear" });
    const serverId = key.slice("opaque/".length);
    const name = effectNames(primary).get(serverId);
    const own = (shadow.records("opaque").map((text) => JSON.parse(text)) as Named[]).find(
      (record) => record.name === name,
    );
    if (op === "create" && own) await operator.command(id, { command: "applied", recordId: String(own.id) });
    else await operator.command(id, { command: "retry" });
    await operator.done(id);
    await caughtUp(gateway);
  }
  expect(await rowsOf(gateway.database, "select state, op, record_key from delivery")).toEqual([]);
}

interface Named {
  id: string | number;
  name: string;
}

/** The names under which the primary's records were made, by server ID. */
function effectNames({ effects }: Systems["primary"]): Map<string, string> {
  const made = effects.filter(({ collection, op }) => collection === "opaque" && op === "create");
  return new Map(made.map(({ id, record = "{}" }) => [id, (JSON.parse(record) as Named).name]));
}
