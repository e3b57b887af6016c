import { describe, expect, test, vi } from "vitest";

import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { PageOptions } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { CommandBody } from "../replay/operator.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startWorkerProcess } from "../replay/worker-process.ts";
import { startLater, type LaterPair } from "./later.ts";
import { newShadowOperator } from "./open.ts";
import { bothHold, caughtUp, startSystems, withShadow, type PairConfig } from "./pair.ts";
import { misfortune, numbersOf } from "./program.ts";

const matching = { match: "/memberNo", list: { page: "page", size: "size" } };

/** Not too many on a page. */
const pages: PageOptions = { cap: 3 };

async function startMatching(
  queues: "postgres" | "redis",
  config: PairConfig = {},
  options: PageOptions = pages,
): Promise<LaterPair> {
  const entity = { ...matching, ...config.entity };
  return await startLater(queues, { ...config, entity }, { pages: options });
}

const memberOf = (n: number): string => `no. ${n}`;

/** Mentors with numbers; all but the first have the one before as their mentor. */
function addMentors(phone: Phone, numbers: number[]): string[] {
  const ids = numbers.map(() => tempId());
  for (const [n, recordId] of ids.entries()) {
    const mentor = ids[n - 1];
    const data = { memberNo: memberOf(numbers[n] ?? 0), name: `m${n}`, ...(mentor && { mentor }) };
    phone.add({ op: "create", entity: "mentor", recordId, data });
  }
  return ids;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, n) => from + n);
}

/** What the shadow held of these before anybody told it anything. */
function hold(shadow: ScriptedUpstream, numbers: number[]): void {
  shadow.seed(
    "mentors",
    numbers.map((n) => JSON.stringify({ memberNo: memberOf(n), name: "old" })),
  );
}

const creates = ({ effects }: ScriptedUpstream): string[] =>
  effects.flatMap(({ op, collection }) => (op === "create" ? [collection] : []));

interface Open {
  mutation_id: string;
  state: string;
  problem: { code: string; detail: string } | null;
}

async function open({ database }: Pick<TestGateway, "database">): Promise<Open[]> {
  return await rowsOf(database, "select * from delivery where upstream_id = 'next' order by seq");
}

const numbers = ({ records }: ScriptedUpstream): string[] =>
  records("mentors").map((text) => (JSON.parse(text) as { memberNo: string }).memberNo);

/** But for the shadow's own, by their numbers. */
async function expectSame(pair: LaterPair, strangers: string[] = []): Promise<void> {
  const held = await bothHold(pair);
  expect(withoutStrangers(held.shadow)).toEqual(held.primary);
  expect(numbers(pair.shadow).toSorted()).toEqual([...numbers(pair.primary), ...strangers].toSorted());
  expect(await open(pair.gateway)).toEqual([]);
  expect(pair.gateway.log.join("\n")).not.toContain('"level":60');
}

async function ownIdsOf({ gateway }: LaterPair): Promise<Map<string, string>> {
  const rows = await rowsOf<{ temp_id: string; own_id: string }>(
    gateway.database,
    "select temp_id, own_id from shadow_record join id_map using (entity, server_id)",
  );
  return new Map(rows.map((row) => [`urn:uuid:${row.temp_id}`, row.own_id]));
}

describe.each(queueBackends())("on %s", { timeout: 120_000 }, (queues) => {
  test.each([
    [5, {}],
    [6, { links: true, total: true, cap: 4 }],
    [7, { ignored: true }],
  ] as const)(
    "what a shadow held before is paired and not doubled, and after random changes both hold the same (seed %i, %o)",
    async (seed, options) => {
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
      misfortune(shadow, next, [
        faults.loseReply(),
        faults.status(503),
        faults.status(503, { effect: true }),
      ]);
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

  test("a worker that is killed while it lists has another one go on, and nothing is doubled", async () => {
    await using pair = await startMatching(queues, { shadow: { timeoutMs: 400 } });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, range(0, 10));
    await phone.replay();
    hold(shadow, range(0, 10));
    shadow.script({ method: "GET", path: /page=3/ }, faults.hang());
    const later = await pair.addShadow("api");
    await using victim = await startWorkerProcess(later);
    await shadow.received({ method: "GET", path: /page=3/ });
    victim.signal("SIGKILL");
    await victim.exited;
    const listed = "select 1 from shadow_listed";
    expect(await rowsOf(gateway.database, listed)).toHaveLength(6);
    expect(creates(shadow)).toEqual([]);
    const asked = shadow.requests.length;
    await later.another("worker");
    await caughtUp(later);
    expect(shadow.requests[asked]?.path).toMatch(/page=3/);
    expect(creates(shadow)).toEqual([]);
    await expectSame(pair);
  });
});

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test.each(["conditional", "lookup", "idempotency-key"])(
    "a worker that is killed in the middle of pairings leaves one effect each, by class %s",
    async (name) => {
      const entity = {
        create: { class: "lookup" },
        update: { class: name },
        reference: "/externalRef",
        lookup: "{path}?externalRef={tempId}",
      };
      await using pair = await startMatching(queues, { entity, shadow: { timeoutMs: 400 } });
      const { gateway, primary, shadow } = pair;
      const phone = newPhone(gateway);
      addMentors(phone, range(0, 10));
      await phone.replay();
      hold(shadow, range(0, 8));
      const gate = Promise.withResolvers<void>();
      shadow.script({ method: "PATCH" }, ...[0, 1, 2].map(() => faults.hold(gate.promise, { effect: true })));
      shadow.script({ method: "GET", path: /mentors\/\d+/ }, ...[0, 1].map(() => faults.loseReply()));
      const later = await pair.addShadow("api");
      await using victim = await startWorkerProcess(later);
      await shadow.received({ method: "PATCH" });
      victim.signal("SIGKILL");
      await victim.exited;
      gate.resolve();
      await later.another("worker");
      await caughtUp(later, 90_000);
      expect(shadow.records("mentors")).toHaveLength(primary.records("mentors").length);
      expect(creates(shadow)).toEqual(["mentors", "mentors"]);
      await expectSame(pair);
    },
  );

  test.each<[command: CommandBody["command"], mentors: number]>([
    ["retry", 1],
    ["applied", 2],
    ["reject", 3],
  ])(
    "one that has two of the same value in the shadow is parked, and released by %s",
    async (command, mentors) => {
      await using pair = await startMatching(queues);
      const { gateway, shadow } = pair;
      const phone = newPhone(gateway);
      const [mentor = ""] = addMentors(phone, [1]);
      await phone.replay();
      hold(shadow, [1, 1]);
      const later = await pair.addShadow();
      await caughtUp(later);
      const [parked] = await open(gateway);
      expect(parked).toMatchObject({ state: "parked", problem: { code: "match-unclear" } });
      expect(shadow.effects).toEqual([]);
      phone.add({
        op: "update",
        entity: "mentor",
        recordId: mentor,
        // A seed goes by the value that the record has when it is sent; and what is left out, by that of its next change.
        data: { name: "later", ...(command === "reject" && { memberNo: "no. 2" }) },
      });
      await phone.replay();
      await caughtUp(later);
      const [first, ...behind] = await open(gateway);
      expect(first).toMatchObject({ mutation_id: parked?.mutation_id, state: "parked" });
      expect(new Set(behind.map(({ state }) => state))).toEqual(new Set(["held"]));
      if (command === "retry") shadow.apply(deletes("/mentors/7001"));
      const body = { command, ...(command === "applied" && { recordId: "7002" }) };
      await newShadowOperator(later).command(parked?.mutation_id ?? "", body);
      await expect.poll(async () => await open(gateway), { timeout: 30_000 }).toEqual([]);
      await caughtUp(later);
      expect(shadow.records("mentors")).toHaveLength(mentors);
      const ownId = (await ownIdsOf(pair)).get(mentor) ?? "";
      if (command !== "reject") expect(ownId).toBe("7002");
      const own = shadow
        .records("mentors")
        .find((text) => String((JSON.parse(text) as { id: number }).id) === ownId);
      expect(JSON.parse(own ?? "{}")).toMatchObject({ name: "later" });
    },
  );

  test("what was left out is paired by its next change, and gets the record as a whole", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [mentor = ""] = addMentors(phone, [1]);
    await phone.replay();
    hold(shadow, [1, 1]);
    const later = await pair.addShadow();
    await caughtUp(later);
    const [parked] = await open(gateway);
    await newShadowOperator(later).command(parked?.mutation_id ?? "", { command: "reject" });
    await expect.poll(async () => await open(gateway), { timeout: 30_000 }).toEqual([]);
    shadow.apply(deletes("/mentors/7001"));
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { later: true } });
    await phone.replay();
    await caughtUp(later);
    expect(shadow.records("mentors")).toEqual(['{"memberNo":"no. 1","name":"m0","id":7002,"later":true}']);
    await expectSame(pair);
  });

  test("a seed whose create may have taken effect is that record, whatever value the record has by then", async () => {
    const entity = {
      create: { class: "lookup" },
      reference: "/externalRef",
      lookup: "{path}?externalRef={tempId}",
    };
    await using pair = await startMatching(queues, { entity });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [mentor = ""] = addMentors(phone, [1]);
    await phone.replay();
    hold(shadow, [2]);
    const gate = Promise.withResolvers<void>();
    const lostLate: Fault = async ({ apply, socket }) => {
      apply();
      await gate.promise;
      socket.resetAndDestroy();
    };
    shadow.script({ method: "POST" }, lostLate);
    const later = await pair.addShadow();
    await shadow.received({ method: "POST" });
    phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { memberNo: memberOf(2) } });
    await phone.replay();
    gate.resolve();
    await caughtUp(later);
    expect((await ownIdsOf(pair)).get(mentor)).toBe("7002");
    expect(creates(shadow)).toEqual(["mentors"]);
    await expectSame(pair, [memberOf(2)]);
  });

  test("what a person has named as one record is paired with no other", async () => {
    // What it holds stays as it is.
    await using pair = await startMatching(queues, { entity: { update: { enabled: false } } });
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, [5]);
    await phone.replay();
    hold(shadow, [1]);
    shadow.script({ method: "POST" }, faults.status(418));
    const later = await pair.addShadow();
    await caughtUp(later);
    const [first] = await open(gateway);
    const operator = newShadowOperator(later);
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "7001" });
    expect(await operator.done(first?.mutation_id ?? "")).toEqual(["applied"]);
    const second = addMentors(phone, [1]);
    await phone.replay();
    await caughtUp(later);
    expect((await open(gateway)).map(({ problem }) => problem?.code)).toEqual(["match-unclear"]);
    expect((await ownIdsOf(pair)).get(second[0] ?? "")).toBeUndefined();
  });

  test("two records of the same value never take the same one: the second is parked, and left out or named by a person", async () => {
    await using pair = await startMatching(queues);
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    addMentors(phone, [1, 1]);
    await phone.replay();
    hold(shadow, [1, 2]);
    const later = await pair.addShadow();
    addMentors(phone, [1, 2]);
    await phone.replay();
    await caughtUp(later);
    const taken = "select server_id from shadow_record where own_id = '7001'";
    expect(await rowsOf(gateway.database, taken)).toHaveLength(1);
    const parked = (await open(gateway)).filter(({ problem }) => problem?.code === "match-unclear");
    expect(parked.length).toBeGreaterThanOrEqual(1);
    expect(creates(shadow)).toEqual([]);
    const operator = newShadowOperator(later);
    const [first] = parked;
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "7001" });
    expect(await operator.done(first?.mutation_id ?? "")).toEqual([
      "refused: the shadow has another record under this ID",
    ]);
    // One that is named by a person is nobody else's any more.
    shadow.seed("mentors", ['{"id":9000,"memberNo":"no. 1"}']);
    await operator.command(first?.mutation_id ?? "", { command: "applied", recordId: "9000" });
    expect(await operator.done(first?.mutation_id ?? "")).toContain("applied");
    await expect.poll(async () => await releaseAll(later, "reject"), { timeout: 30_000 }).toEqual([]);
    expect(creates(shadow)).toEqual([]);
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

function deletes(path: string): Parameters<ScriptedUpstream["apply"]>[0] {
  return { method: "DELETE", path, headers: {}, body: Buffer.alloc(0) };
}

/** What is still open, after a decision about what is parked. */
async function releaseAll(later: TestGateway, command: "reject"): Promise<Open[]> {
  const rows = await open(later);
  for (const { mutation_id: id, state } of rows)
    if (state === "parked") await newShadowOperator(later).ask(id, { command });
  return rows;
}

function withoutStrangers(held: unknown): unknown {
  const { mentors, ...rest } = held as { mentors: Record<string, unknown> };
  const known = Object.entries(mentors).filter(([id]) => !id.startsWith("?"));
  return { ...rest, mentors: Object.fromEntries(known) };
}
