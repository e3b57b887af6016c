import { describe, expect, onTestFinished, test } from "vitest";

import { forgetShadowOf } from "../../src/cli/forget-shadow.ts";
import { openDatabase } from "../../src/platform/db.ts";
import { laneIdOf } from "../../src/replay/shadows/log.ts";
import { addShadow } from "../../src/replay/shadows/register.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { runCli, type Ran } from "../cli/run-cli.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { holding } from "../replay/locked.ts";
import { newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater } from "./later.ts";
import { added, bothHold, caughtUp, startSystems, withShadow } from "./pair.ts";
import { leftOf, pruneShadows } from "./pruned.ts";

/** What `npm run forget-shadow` does, by a process of its own. */
async function forgetByCommand({ environment }: TestGateway, ...options: string[]): Promise<Ran> {
  const env = { DATABASE_URL: environment.databaseUrl, TIDEGATE_CONFIG: environment.configPath };
  return await runCli(["forget-shadow", "ours", "next", ...options], { env });
}

/** The same in this process, as the database's owner; resolves with what it says. */
async function forget(
  { environment, database }: TestGateway,
  { upstreamId = "next", givesUp = false } = {},
): Promise<string> {
  let said = "";
  const options = { isMeant: true, givesUp, by: "siri", write: (text: string) => void (said += text) };
  const id = { tenantId: "ours", upstreamId };
  const env = { MIGRATION_DATABASE_URL: database.ownerUrl, DATABASE_URL: "not this one" };
  expect(await forgetShadowOf(environment.configPath, id, { env, ...options })).toBe(0);
  return said;
}

function create(phone: Phone, count: number): string[] {
  return Array.from({ length: count }, () => {
    const recordId = tempId();
    phone.add({ op: "create", entity: "mentor", recordId, data: { n: count } });
    return recordId;
  });
}

const classes = {
  key: {},
  lookup: { create: { class: "lookup" }, reference: "/externalRef", lookup: "{path}?externalRef={tempId}" },
};

async function addRows({ database }: TestGateway, ...upstreamIds: string[]): Promise<void> {
  const insert = "insert into shadow (tenant_id, upstream_id, follows_from) values ('ours', $1, 0)";
  for (const upstreamId of upstreamIds) await rowsOf(database, insert, [upstreamId]);
}

/** What a process does whose configuration, of that age, names the shadow. */
async function lookFor({ database }: TestGateway, ageMs: number): Promise<unknown> {
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  const upstream = aRestUpstream("http://127.0.0.1:1", {});
  const id = { tenantId: "ours", upstreamId: "next" };
  try {
    return await addShadow(db, id, { shadow: upstream, primary: upstream, ageMs: () => ageMs }, () =>
      Promise.resolve(false),
    );
  } finally {
    await db.destroy();
  }
}

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";
  /** Its calls are still under way when it is forgotten. */
  const patient = { shadow: { timeoutMs: 20_000 } };

  test.each(Object.entries(classes))(
    "with creates by %s, a shadow is forgotten beside workers that have it in hand, and comes back",
    async (_, entity) => {
      await using pair = await startLater(queues, { ...patient, entity });
      const { gateway, shadow } = pair;
      const later = await pair.addShadow();
      const phone = newPhone(gateway);
      create(phone, 5);
      await phone.replay();
      await caughtUp(later);
      const gate = Promise.withResolvers<void>();
      shadow.script({ method: "POST" }, faults.hold(gate.promise, { effect: true }));
      const [held = ""] = create(phone, 1);
      await phone.replay();
      await shadow.received({ method: "POST" }, 6);

      await forget(gateway, { givesUp: true });
      gate.resolve();
      phone.add({ op: "update", entity: "mentor", recordId: held, data: { later: true } });
      await phone.replay();
      // What the worker that had it in hand was answered came to nothing.
      const stale = "select 1 from attempt where upstream_id = 'next' and disposition = 'stale'";
      await expect.poll(() => rowsOf(gateway.database, stale), { timeout: 30_000 }).toHaveLength(1);
      await pruneShadows(gateway);
      expect(await leftOf(gateway)).toEqual({});
      expect(await lookFor(gateway, 60_000)).toBeUndefined();
      expect(await leftOf(gateway)).toEqual({});
      expect(await rowsOf(gateway.database, "select forgotten_by from forgotten_shadow")).toEqual([
        { forgotten_by: "siri" },
      ]);

      await later.close();
      // What its system holds from before is found, and brought up to what the record is by now.
      const back = await pair.addShadow();
      await caughtUp(back);
      const epochs = "select min(epoch)::float8 as epoch from lane where partition is not null";
      const [first] = await rowsOf<{ epoch: number }>(gateway.database, epochs);
      expect(first?.epoch).toBeGreaterThan(2 ** 40);
      const both = await bothHold(pair);
      expect(both.shadow).toEqual(both.primary);
      expect(shadow.records("mentors")).toHaveLength(6);
    },
  );

  test("forgotten while it is being added, nothing of it is left, and nothing goes there", async () => {
    await using pair = await startLater(queues, {
      ...patient,
      entity: { match: "/n", list: { page: "page", size: "size" } },
    });
    const { gateway, shadow } = pair;
    create(newPhone(gateway), 3);
    const gate = Promise.withResolvers<void>();
    shadow.script({ method: "GET" }, faults.hold(gate.promise));
    const later = await pair.addShadow();
    await shadow.received({ method: "GET" });
    await forget(gateway);
    gate.resolve();
    await expect
      .poll(() => later.log.join(""), { timeout: 30_000 })
      .toContain("a shadow could not be looked at");
    expect(await leftOf(gateway)).toEqual({});
    expect(shadow.effects).toEqual([]);
  });

  test("a process that had read its configuration when a shadow was forgotten does not bring it back", async () => {
    const [primary, shadow] = await startSystems();
    onTestFinished(async () => void (await Promise.all([primary.stop(), shadow.stop()])));
    const both = withShadow(primary.url, shadow.url) as { next: object };
    const database = await createTestDatabase();
    const upstreams = { ...both, third: both.next };
    const { holder, queued } = await holding(database, "lock table installation in access exclusive mode");
    const starting = startGateway({ queues, database, upstreams });
    await queued(1);
    await rowsOf(
      database,
      `insert into forgotten_shadow (tenant_id, upstream_id, forgotten_by, open_changes, cleared_at)
       values ('ours', 'next', 'siri', 0, now())`,
    );
    await holder.query("commit");
    await using gateway = await starting;
    await added(gateway);
    expect(await rowsOf(database, "select upstream_id from shadow")).toEqual([{ upstream_id: "third" }]);
  });

  test("nothing is forgotten that the configuration names, or that is not there", async () => {
    await using pair = await startLater(queues, {});
    const { gateway } = pair;
    await expect(forget(gateway)).rejects.toMatchObject({ code: "not-found" });
    await addRows(gateway, "next", "crm");
    await expect(forget(gateway, { upstreamId: "crm" })).rejects.toMatchObject({ code: "command-refused" });
    expect(await leftOf(gateway)).toEqual({ shadow: 2 });
    for (let n = 0; n < 2; n++) expect(await forget(gateway)).toContain("The shadow is forgotten");
    expect(await leftOf(gateway)).toEqual({ shadow: 1 });
  });

  test("the command changes nothing without --yes, gives nothing up unasked, and says who it was", async () => {
    await using pair = await startLater(queues, {});
    const { gateway } = pair;
    await addRows(gateway, "next");
    await rowsOf(
      gateway.database,
      `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key)
       values ('ours', 'next', gen_random_uuid(), $1, 1, 'parked', '')`,
      [laneIdOf("ours", "next", 3)],
    );
    const by = ["--yes", "--by", "ola"];
    const [looked, refused, misled] = await Promise.all([
      forgetByCommand(gateway, "--give-up"),
      forgetByCommand(gateway, ...by),
      forgetByCommand(gateway, ...by, "--give-up", "--config", "nowhere.yaml"),
    ]);
    expect(looked).toMatchObject({ code: 0, out: expect.stringContaining("Nothing was changed") });
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining("command-refused") });
    expect(misled).toMatchObject({ code: 1, err: expect.stringContaining("config-invalid") });
    expect(await leftOf(gateway)).toEqual({ shadow: 1, delivery: 1 });
    expect(await forgetByCommand(gateway, ...by, "--give-up")).toMatchObject({ code: 0, err: "" });
    expect(await leftOf(gateway)).toEqual({});
    const told = "select forgotten_by, open_changes from forgotten_shadow";
    expect(await rowsOf(gateway.database, told)).toEqual([{ forgotten_by: "ola", open_changes: "1" }]);
  });
});
