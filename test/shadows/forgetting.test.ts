import { describe, expect, test } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { addShadow } from "../../src/replay/shadows/register.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { runCli, type Ran } from "../cli/run-cli.ts";
import { tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater } from "./later.ts";
import { bothHold, caughtUp } from "./pair.ts";
import { leftOf, pruneShadows } from "./pruned.ts";

async function forget(gateway: TestGateway, ...options: string[]): Promise<Ran> {
  return await forgetNamed(gateway, "next", ...options);
}

async function forgetNamed(
  { environment }: TestGateway,
  upstreamId: string,
  ...options: string[]
): Promise<Ran> {
  const env = { DATABASE_URL: environment.databaseUrl, TIDEGATE_CONFIG: environment.configPath };
  return await runCli(["forget-shadow", "ours", upstreamId, ...options], { env });
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

const failed = (word: string) => ({ code: 1, err: expect.stringContaining(word) });

/** What a process does whose configuration, of that age, names the shadow. */
async function lookFor({ database }: TestGateway, ageMs: number): Promise<unknown> {
  const db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
  const upstream = aRestUpstream("http://127.0.0.1:1", {});
  const id = { tenantId: "ours", upstreamId: "next" };
  try {
    return await addShadow(db, id, { shadow: upstream, primary: upstream, ageMs }, () =>
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

      const { code, err } = await forget(gateway, "--yes", "--give-up", "--by", "siri");
      expect({ code, err }).toEqual({ code: 0, err: "" });
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
    expect((await forget(gateway, "--yes")).code).toBe(0);
    gate.resolve();
    await expect
      .poll(() => later.log.join(""), { timeout: 30_000 })
      .toContain("a shadow could not be looked at");
    expect(await leftOf(gateway)).toEqual({});
    expect(shadow.effects).toEqual([]);
  });

  test("nothing is forgotten that the configuration names, without --yes, or that is not there", async () => {
    await using pair = await startLater(queues, {});
    const { gateway } = pair;
    expect(await forget(gateway, "--yes")).toMatchObject(failed("not-found"));
    const insert = "insert into shadow (tenant_id, upstream_id, follows_from) values ('ours', $1, 0)";
    for (const upstreamId of ["next", "crm"]) await rowsOf(gateway.database, insert, [upstreamId]);
    expect(await forget(gateway, "--yes", "--config", "nowhere.yaml")).toMatchObject(
      failed("config-invalid"),
    );
    expect(await forgetNamed(gateway, "crm", "--yes")).toMatchObject(failed("command-refused"));
    const looked = { code: 0, out: expect.stringContaining("Nothing was changed") };
    expect(await forget(gateway)).toMatchObject(looked);
    expect(await leftOf(gateway)).toEqual({ shadow: 2 });
    for (let n = 0; n < 2; n++) expect(await forget(gateway, "--yes")).toMatchObject({ code: 0, err: "" });
    expect(await leftOf(gateway)).toEqual({ shadow: 1 });
  });
});
