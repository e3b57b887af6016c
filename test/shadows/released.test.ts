import { beforeAll, describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { CommandBody, Operator } from "../replay/operator.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { effectsOf, newShadowOperator, openOf, released, seenBy } from "./open.ts";
import { added, bothHold, caughtUp, sharedPair, startPair } from "./pair.ts";

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";
  const pair = sharedPair(queues);
  let operator: Operator;
  beforeAll(() => {
    operator = newShadowOperator(pair.gateway);
  });

  /** A create of a mentor that is parked in the shadow, what is held behind it there, and what has passed it since. */
  async function withParked(phone: Phone) {
    const [mentor, activity, marker] = [tempId(), tempId(), tempId().slice(9)];
    pair.shadow.script(
      ({ method, body }) => method === "POST" && body.toString().includes(marker),
      faults.status(418, { body: "no" }),
    );
    const parked = phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { marker, n: 0 } });
    const held = [
      phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { n: 1 } }),
      phone.add({ op: "create", recordId: activity, data: { marker, mentor, n: 2 } }),
      phone.add({ op: "update", recordId: activity, data: { n: 3 } }),
      phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { n: 4 } }),
    ];
    const [created] = await phone.replay();
    await caughtUp(pair.gateway);
    expect(await openOf(pair.gateway, [parked, ...held])).toEqual([
      "parked",
      "held behind 0",
      "held behind 0",
      "held behind 2",
      "held behind 0",
    ]);
    // The lanes go far ahead of it.
    for (let n = 0; n < 40; n++) phone.add({ op: "create", recordId: tempId(), data: { n } });
    expect(new Set(linesOf(await phone.replay()))).toEqual(new Set(["applied"]));
    await caughtUp(pair.gateway);
    return { marker, mentor, serverId: created?.recordId ?? "", parked, held, all: [parked, ...held] };
  }

  /** What the shadow calls a record, by its create. */
  async function ownIdOf({ recordId }: { recordId: string }): Promise<string> {
    const rows = await rowsOf<{ own_id: string }>(
      pair.gateway.database,
      "select own_id from shadow_record join id_map using (entity, server_id) where temp_id = $1",
      [recordId.slice(9)],
    );
    return rows[0]?.own_id ?? "none";
  }

  test("sent again, it is made, what was held follows in order in every lane, and clients see nothing of it", async () => {
    const phone = newPhone(pair.gateway);
    const { marker, parked, all } = await withParked(phone);
    const seen = await seenBy(phone);
    await operator.command(parked.id, { command: "retry", reason: "the mapping was corrected" });
    await released(pair.gateway, all);
    const effects = effectsOf(pair.shadow, marker);
    expect(effects.filter((effect) => effect.includes("mentors"))).toEqual([
      "create mentors 0",
      "update mentors 1",
      "update mentors 4",
    ]);
    expect(effects.filter((effect) => effect.includes("activities"))).toEqual([
      "create activities 2",
      "update activities 3",
    ]);
    expect(await operator.done(parked.id)).toEqual(["applied"]);
    expect(await seenBy(phone)).toEqual(seen);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
  });

  test("left out, the record's next change creates it as a whole, and what refers to it waits for that", async () => {
    const phone = newPhone(pair.gateway);
    const { marker, parked, all } = await withParked(phone);
    const seen = await seenBy(phone);
    await operator.command(parked.id, { command: "reject", reason: "it was there twice" });
    await released(pair.gateway, all);
    const effects = effectsOf(pair.shadow, marker);
    expect(effects.filter((effect) => effect.includes("mentors"))).toEqual([
      "create mentors 1",
      "update mentors 4",
    ]);
    expect(effects.filter((effect) => effect.includes("activities"))).toEqual([
      "create activities 2",
      "update activities 3",
    ]);
    expect(await operator.done(parked.id)).toEqual(["rejected"]);
    expect(await seenBy(phone)).toEqual(seen);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
  });

  test("a create that a person has found, or made, goes on under the ID that it has there", async () => {
    const phone = newPhone(pair.gateway);
    const { marker, parked, held, all } = await withParked(phone);
    const id = 100_000 + Math.floor(Math.random() * 100_000);
    pair.shadow.seed("mentors", [JSON.stringify({ id, marker, n: 0 })]);
    const taken = phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: {} });
    await phone.replay();
    await caughtUp(pair.gateway);
    const ofAnother = await ownIdOf(taken);
    expect(await operator.ask(parked.id, { command: "applied" })).toMatchObject({ status: 400 });
    await operator.command(parked.id, { command: "applied", recordId: "there-is-no-such" });
    await operator.done(parked.id);
    await operator.command(parked.id, { command: "applied", recordId: ofAnother });
    expect(await operator.done(parked.id)).toEqual([
      "refused: the shadow has no such record",
      "refused: the shadow has another record under this ID",
    ]);
    expect(await openOf(pair.gateway, [parked])).toEqual(["parked"]);
    expect(await operator.ask(held[0]?.id ?? "", { command: "applied" })).toMatchObject({ status: 409 });
    await operator.command(parked.id, { command: "applied", recordId: String(id) });
    await released(pair.gateway, all);
    expect(effectsOf(pair.shadow, marker).filter((effect) => effect.includes("mentors"))).toEqual([
      "update mentors 1",
      "update mentors 4",
    ]);
    const both = await bothHold(pair);
    expect(both.shadow).toEqual(both.primary);
  });

  const decisions: [
    op: "update" | "delete",
    command: CommandBody["command"],
    result: string,
    fields: object | undefined,
  ][] = [
    ["update", "retry", "applied", { a: 1, b: 2, c: 3 }],
    ["update", "applied", "applied", { a: 1, b: "by hand", c: 3 }],
    ["update", "reject", "rejected", { a: 1, b: 1, c: 3 }],
    ["delete", "retry", "applied", undefined],
    ["delete", "applied", "applied", { a: 1, b: "by hand" }],
    ["delete", "reject", "rejected", { a: 1, b: 1 }],
  ];
  test.each(decisions)("a parked %s and the command %s: %s", async (op, command, result, fields) => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [recordId, marker] = [tempId(), tempId().slice(9)];
    phone.add({ op: "create", recordId, data: { marker, a: 1, b: 1 } });
    await phone.replay();
    await caughtUp(gateway);
    const ownId = await ownIdOf({ recordId });
    const isIts = { method: op === "delete" ? "DELETE" : "PATCH", path: `/activities/${ownId}` };
    shadow.script(isIts, faults.status(op === "delete" ? 422 : 418));
    const parked = phone.add({ op, recordId, ...(op === "update" && { data: { b: 2 } }) });
    const held = op === "update" ? [phone.add({ op, recordId, data: { c: 3 } })] : [];
    await phone.replay();
    await caughtUp(gateway);
    expect(await openOf(gateway, [parked, ...held])).toEqual(["parked", ...held.map(() => "held behind 0")]);
    const seen = await seenBy(phone);
    if (command === "applied") {
      expect(await operator.ask(parked.id, { command, recordId: "1" })).toMatchObject({ status: 400 });
      shadow.seed("activities", [JSON.stringify({ id: Number(ownId), marker, a: 1, b: "by hand" })]);
    }
    await operator.command(parked.id, { command });
    await released(gateway, [parked, ...held]);
    expect(await operator.done(parked.id)).toEqual([result]);
    const its = shadow.records("activities").filter((text) => text.includes(marker));
    expect(its.map((text) => JSON.parse(text) as unknown)).toEqual(
      fields ? [{ id: Number(ownId), marker, ...fields }] : [],
    );
    // A change that a person has made is not sent once more.
    const sent = shadow.requests.filter(({ method, path }) => method === isIts.method && path === isIts.path);
    expect(sent).toHaveLength((command === "retry" ? 2 : 1) + held.length);
    expect(await seenBy(phone)).toEqual(seen);
  });

  test("a record that is deleted while its create is parked is not left over in the shadow", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const { marker, mentor, parked, all } = await withParked(phone);
    const deleted = phone.add({ op: "delete", entity: "mentor", recordId: mentor });
    await phone.replay();
    await caughtUp(gateway);
    await operator.command(parked.id, { command: "retry" });
    await released(gateway, [...all, deleted]);
    expect(shadow.records("mentors").filter((text) => text.includes(marker))).toEqual([]);
    const ofMentor = effectsOf(shadow, marker).filter((effect) => effect.includes("mentors"));
    expect(ofMentor.at(-1)).toBe("delete mentors");
  });

  test("one that fails again is parked again, and what was held stays held", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const { marker, parked, all } = await withParked(phone);
    const before = await openOf(gateway, all);
    shadow.script(({ body }) => body.toString().includes(marker), faults.status(418));
    await operator.command(parked.id, { command: "retry" });
    expect(await operator.done(parked.id)).toEqual(["parked"]);
    await caughtUp(gateway);
    expect(await openOf(gateway, all)).toEqual(before);
    expect(effectsOf(shadow, marker)).toEqual([]);
    await operator.command(parked.id, { command: "retry" });
    await released(gateway, all);
  });

  test("one whose calls are lost is tried again, and nothing of its record overtakes it", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const { marker, mentor, parked, all } = await withParked(phone);
    shadow.script(
      ({ body }) => body.toString().includes(marker),
      faults.status(503),
      faults.loseReply(),
      faults.status(429, { headers: { "retry-after": "0" } }),
    );
    await operator.command(parked.id, { command: "retry" });
    const later = phone.add({ op: "update", entity: "mentor", recordId: mentor, data: { n: 6 } });
    await phone.replay();
    await caughtUp(gateway);
    await released(gateway, [...all, later]);
    expect(effectsOf(shadow, marker).filter((effect) => effect.includes("mentors"))).toEqual([
      "create mentors 0",
      "update mentors 1",
      "update mentors 4",
      "update mentors 6",
    ]);
  });

  test("records that name each other are never held in a circle: a person is asked", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [one, other, marker] = [tempId(), tempId(), tempId().slice(9)];
    shadow.script(({ body }) => body.toString().includes(marker), faults.status(418));
    const all = [
      phone.add({ op: "create", entity: "mentor", recordId: one, data: { marker } }),
      phone.add({ op: "create", entity: "mentor", recordId: other, data: { mentor: one, n: 1 } }),
      phone.add({ op: "update", entity: "mentor", recordId: one, data: { mentor: other } }),
    ];
    await phone.replay();
    await caughtUp(gateway);
    expect(await openOf(gateway, all)).toEqual(["parked", "held behind 0", "held behind 0"]);
    await operator.command(all[0]?.id ?? "", { command: "reject" });
    const asked = ["none", "parked", "held behind 1"];
    await expect.poll(async () => await openOf(gateway, all), { timeout: 20_000 }).toEqual(asked);
    // Somebody makes the one that is named, and says so.
    shadow.seed("mentors", ['{"id":990001,"n":1}']);
    await operator.command(all[1]?.id ?? "", { command: "applied", recordId: "990001" });
    await released(gateway, all);
    const made = shadow.records("mentors").find((text) => text.includes(marker)) ?? "{}";
    expect(JSON.parse(made)).toMatchObject({ mentor: "990001", marker });
  });

  test("more than one turn can read is released over several turns, in order", async () => {
    const { gateway, shadow } = pair;
    const phone = newPhone(gateway);
    const [recordId, marker] = [tempId(), tempId().slice(9)];
    shadow.script(({ body }) => body.toString().includes(marker), faults.status(418));
    const numbers = Array.from({ length: 220 }, (_, n) => n);
    const all = numbers.map((n) =>
      phone.add({ op: n === 0 ? "create" : "update", recordId, data: n === 0 ? { marker, n } : { n } }),
    );
    await phone.send({ wait: 0 });
    await phone.settled(60_000);
    await caughtUp(gateway);
    await operator.command(all[0]?.id ?? "", { command: "retry" });
    await released(gateway, all);
    expect(effectsOf(shadow, marker)).toEqual(
      numbers.map((n) => `${n === 0 ? "create" : "update"} activities ${n}`),
    );
  });

  test("with hold-lane, the lane stands still behind what is parked, and goes on when a person has decided", async () => {
    await using strict = await startPair(queues, { shadow: { onPark: "hold-lane" } });
    const { gateway, shadow } = strict;
    await added(gateway);
    const phone = newPhone(gateway);
    const decide = newShadowOperator(gateway);
    const marker = tempId().slice(9);
    shadow.script(({ body }) => body.toString().includes(marker), faults.status(418), faults.status(418));
    const [one, other] = [tempId(), tempId()];
    const all = [
      phone.add({ op: "create", entity: "mentor", recordId: one, data: { marker, n: 0 } }),
      phone.add({ op: "update", entity: "mentor", recordId: one, data: { n: 1 } }),
      phone.add({ op: "create", recordId: other, data: { mentor: one, n: 2 } }),
    ];
    await phone.replay();
    const stood = async (): Promise<string[]> => await openOf(gateway, all);
    await expect.poll(stood, { timeout: 20_000 }).toEqual(["parked", "none", "held behind 0"]);
    await decide.command(all[0]?.id ?? "", { command: "retry" });
    expect(await decide.done(all[0]?.id ?? "")).toEqual(["parked"]);
    await decide.command(all[0]?.id ?? "", { command: "retry" });
    await caughtUp(gateway);
    await released(gateway, all);
    const systems = await bothHold(strict);
    expect(systems.shadow).toEqual(systems.primary);
  });
});
