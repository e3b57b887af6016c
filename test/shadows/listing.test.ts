import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { pino } from "pino";
import type { Kysely } from "kysely";

import { openDatabase } from "../../src/platform/db.ts";
import type { Database } from "../../src/platform/schema.ts";
import type { Claim } from "../../src/replay/claim.ts";
import { listHeld, readUnlisted } from "../../src/replay/shadows/listing.ts";
import { createPartners } from "../../src/replay/shadows/partners.ts";
import type { UpstreamError } from "../../src/upstream/connector.ts";
import { openUpstream, type Upstream } from "../../src/upstream/upstream.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { PageOptions } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { rowsOf } from "../replay/rows.ts";

const secrets = ["the newest secret", "an older one"];
const tenantId = "ours";
const never = new AbortController().signal;

let database: TestDatabase;
let db: Kysely<Database>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 4, onError: () => undefined });
  await rowsOf(
    database,
    "insert into shadow (tenant_id, upstream_id, follows_from) values ('ours', 'next', 0)",
  );
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});
beforeEach(async () => {
  await asSuperuser(database.superuserUrl, (client) =>
    client.query("truncate tidegate.shadow_listing, tidegate.shadow_listed"),
  );
});

async function setup(
  pages: PageOptions,
  match = "/no",
): Promise<{ system: ScriptedUpstream; upstream: Upstream }> {
  const system = await startScriptedUpstream({ pages });
  const entity = { match, list: { page: "page", size: "size" } };
  const upstream = openUpstream("next", aRestUpstream(system.url, { role: "shadow", entity }), {
    log: pino({ level: "silent" }),
  });
  onTestFinished(async () => {
    await upstream.close();
    await system.stop();
  });
  return { system, upstream };
}

function fill(system: ScriptedUpstream, count: number): void {
  system.seed(
    "activities",
    Array.from({ length: count }, (_, n) => `{"no":"${n}"}`),
  );
}

async function listed(): Promise<string[]> {
  const rows = await rowsOf<{ own_id: string }>(
    database,
    "select own_id from shadow_listed order by own_id::int",
  );
  return rows.map(({ own_id }) => own_id);
}

async function isFinished(): Promise<boolean> {
  return (await rowsOf(database, "select 1 from shadow_listing where finished_at is not null")).length === 1;
}

const upTo = (count: number): string[] => Array.from({ length: count }, (_, n) => String(n + 1));

describe("every record of a shadow is listed once", () => {
  test.each([1, 2, 3, 4, 5, 7, 10, 11, 12, 200])("from pages of %i", async (cap) => {
    for (const options of [{}, { links: true }, { total: true }]) {
      const { system, upstream } = await setup({ cap, ...options });
      fill(system, 11);
      await asSuperuser(database.superuserUrl, (client) =>
        client.query("truncate tidegate.shadow_listing, tidegate.shadow_listed"),
      );
      expect(await listHeld(db, { tenantId, upstream, secrets }, never)).toBe(true);
      expect(await listed()).toEqual(upTo(11));
      expect(await isFinished()).toBe(true);
    }
  });

  test.each([0, 1, 11])("where the server ignores what page it is asked for (%i records)", async (count) => {
    const { system, upstream } = await setup({ ignored: true });
    fill(system, count);
    expect(await listHeld(db, { tenantId, upstream, secrets }, never)).toBe(true);
    expect(await listed()).toEqual(upTo(count));
    expect(system.requests.length).toBeLessThanOrEqual(4);
  });

  test("where records are deleted while it is gone through, so that others move to pages that were read", async () => {
    const { system, upstream } = await setup({ cap: 3 });
    fill(system, 12);
    const deleteFirst = (): void =>
      void system.apply({ method: "DELETE", path: "/activities/1", headers: {}, body: Buffer.alloc(0) });
    system.script({ path: /page=2/ }, ({ apply, send }) => {
      deleteFirst();
      send(apply());
    });
    await listHeld(db, { tenantId, upstream, secrets }, never);
    expect(await listed()).toEqual(upTo(12));
  });

  test("and a system in which every pass finds something new does not keep it for ever", async () => {
    const { system, upstream } = await setup({ cap: 5 });
    fill(system, 11);
    system.always({ path: /page=1\b/ }, ({ apply, send }) => {
      fill(system, 1);
      send(apply());
    });
    await listHeld(db, { tenantId, upstream, secrets }, never);
    expect(await isFinished()).toBe(true);
    expect(system.requests.filter(({ path }) => /page=1\b/.test(path))).toHaveLength(5);
  });
});

test("a listing that fails goes on where it stood", async () => {
  const { system, upstream } = await setup({ cap: 3 });
  fill(system, 11);
  system.script({ path: /page=3/ }, faults.status(500));
  const failure: unknown = await listHeld(db, { tenantId, upstream, secrets }, never).catch(
    (error: unknown) => error,
  );
  expect(failure as UpstreamError).toMatchObject({ status: 500, disposition: "retry" });
  expect(await listed()).toEqual(upTo(6));
  expect(await isFinished()).toBe(false);
  const asked = system.requests.length;
  await listHeld(db, { tenantId, upstream, secrets }, never);
  expect(system.requests[asked]?.path).toContain("page=3");
  expect(await listed()).toEqual(upTo(11));
});

test("of two that list at once, each page is kept from one of them, and the list is whole", async () => {
  const { system, upstream } = await setup({ cap: 2 });
  fill(system, 11);
  const both = async (): Promise<boolean> => {
    const done = await Promise.all([1, 2].map(() => listHeld(db, { tenantId, upstream, secrets }, never)));
    return done.every((isDone) => isDone);
  };
  await expect.poll(both).toBe(true);
  expect(await listed()).toEqual(upTo(11));
});

test("a record is taken by one other, for as long as the lane is its taker's", async () => {
  const { system, upstream } = await setup({});
  fill(system, 1);
  await listHeld(db, { tenantId, upstream, secrets }, never);
  await asSuperuser(database.superuserUrl, (client) =>
    client.query(`insert into tidegate.lane (tenant_id, lane_id, upstream_id, partition, epoch, lease_until)
      values ('ours', 'a lane', 'next', 0, 5, now())`),
  );
  const partners = createPartners(db, { tenantId, upstreamId: "next" }, secrets);
  const take = async (epoch: number, serverId: string): Promise<string> => {
    const claim = { laneId: "a lane", epoch } as Claim;
    return await partners.take(claim, { entity: "activity", serverId }, { ownId: "1", version: undefined });
  };
  const taken = "select server_id, own_id, reached from shadow_record";
  expect(await take(4, "x")).toBe("lost");
  expect(await rowsOf(database, taken)).toEqual([]);
  expect(await take(5, "x")).toBe("paired");
  expect(await take(5, "y")).toBe("taken");
  expect(await take(5, "x")).toBe("paired");
  expect(await rowsOf(database, taken)).toEqual([{ server_id: "x", own_id: "1", reached: "-1" }]);
});

describe("values", () => {
  test("are kept as keyed hashes alone, and found under every known secret", async () => {
    const { system, upstream } = await setup({});
    system.seed("activities", ['{"no":"12-secret-34"}', '{"no":12}', "{}", '{"no":""}', '{"no":{"a":1}}']);
    const of = { tenantId, upstreamId: "next" };
    await listHeld(db, { tenantId, upstream, secrets: secrets.slice(1) }, never);
    const kept = await rowsOf(database, "select * from shadow_listed join shadow_listing using (entity)");
    expect(JSON.stringify(kept)).not.toContain("12-secret-34");
    const asked = { entity: "activity", pointer: "/no", value: "12-secret-34" };
    const partners = createPartners(db, of, secrets);
    expect(await partners.find(asked)).toEqual([{ ownId: "1", takenBy: null }]);
    expect(await partners.find({ ...asked, value: "12" })).toEqual([{ ownId: "2", takenBy: null }]);
    expect(await partners.find({ ...asked, value: "none" })).toEqual([]);
    expect(await createPartners(db, { ...of, upstreamId: "other" }, secrets).find(asked)).toEqual([]);
    expect(await createPartners(db, of, ["a third one"]).find(asked)).toBeUndefined();
    expect(await partners.find({ ...asked, pointer: "/other" })).toBeUndefined();
    expect(await readUnlisted(db, { tenantId, upstream, secrets })).toEqual([]);
    expect(await readUnlisted(db, { tenantId, upstream, secrets: ["a third one"] })).toEqual(["activity"]);
  });

  test("of a list that was begun for another field are read anew", async () => {
    const { system, upstream } = await setup({ cap: 1 });
    system.seed("activities", ['{"no":"a","other":"x"}', '{"no":"b","other":"y"}']);
    system.script({ path: /page=2/ }, faults.status(500));
    await listHeld(db, { tenantId, upstream, secrets }, never).catch(() => undefined);
    const again = openUpstream(
      "next",
      aRestUpstream(system.url, { entity: { match: "/other", list: { page: "page" } } }),
      { log: pino({ level: "silent" }) },
    );
    await listHeld(db, { tenantId, upstream: again, secrets }, never);
    await again.close();
    const partners = createPartners(db, { tenantId, upstreamId: "next" }, secrets);
    const found = async (value: string): Promise<unknown> =>
      await partners.find({ entity: "activity", pointer: "/other", value });
    expect(await found("x")).toHaveLength(1);
    expect(await found("y")).toHaveLength(1);
    expect(await found("a")).toEqual([]);
  });
});
