import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { EntityConfig } from "../../src/platform/config/entity-schema.ts";
import { openEvaluator } from "../../src/upstream/mapping/evaluator.ts";
import { compileUpcast, UpcastError } from "../../src/upstream/upcast.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { bothHold, caughtUp, onlyPrimary, startSystems, withShadow } from "../shadows/pair.ts";
import { newOperator } from "./operator.ts";
import { quiet } from "./parked.ts";
import { linesOf, newPhone, resultOf, toLine, type Phone } from "./phone.ts";
import { rowsOf } from "./rows.ts";

/** Version 1 said `peer` and `hours`, 2 says `mentor`, 3 counts minutes. */
const toMentor = { from: 1, to: 2, name: "peer is mentor", data: '$ ~> |$|{"mentor": peer}, "peer"|' };
const toMinutes = {
  from: 2,
  to: 3,
  name: "hours are minutes",
  data: '$ ~> |$|{"minutes": hours = null ? null : hours * 60}, "hours"|',
};
const versions = { schema: 3, schemaDefault: 1, upcast: [toMentor, toMinutes] };

/** What the upstream was sent, by method, in order. */
function sentBy(upstream: ScriptedUpstream, from = 0): string[] {
  return upstream.requests.slice(from).map(({ method, body }) => `${method} ${body.toString()}`);
}

describe("mutations of older versions", { timeout: 60_000 }, () => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    const entity = { ...versions, write: { fields: { "/minutes": ["role:clerk"] } } };
    gateway = await startGateway({
      queues: "postgres",
      upstreams: crm(upstream.url, { upstream: quiet, entity }),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });
  const clerk = (): Phone => newPhone(gateway, { roles: ["clerk"] });

  test("reach the upstream in the present one, step by step, references, removals and all", async () => {
    const phone = clerk();
    const from = upstream.requests.length;
    const [mentor, activity] = [tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, schema: 3, data: { name: "Kari" } });
    phone.add({ op: "create", recordId: activity, schema: 1, data: { peer: mentor, hours: 2 } });
    phone.add({ op: "update", recordId: activity, schema: "2", data: { hours: 3 }, base: { hours: 2 } });
    phone.add({ op: "update", recordId: activity, schema: 2, data: { hours: null, mentor: null } });
    phone.add({ op: "create", recordId: tempId(), data: { peer: mentor } });
    const results = await phone.replay();
    expect(linesOf(results)).toEqual(results.map(() => "applied"));
    const { recordId } = results[0] ?? {};
    expect(sentBy(upstream, from)).toEqual([
      'POST {"name":"Kari"}',
      `POST {"mentor":"${recordId}","minutes":120}`,
      'PATCH {"minutes":180}',
      'PATCH {"mentor":null,"minutes":null}',
      `POST {"mentor":"${recordId}"}`,
    ]);
  });

  test("keep their recorded outcome, since sameness is that of what the phone sent", async () => {
    const phone = clerk();
    const create = phone.add({ op: "create", recordId: tempId(), schema: 1, data: { hours: 1 } });
    const [first] = await phone.replay();
    const from = upstream.requests.length;
    const again = { clientId: phone.clientId, previousSeq: 0, mutations: [create] };
    const { body } = await phone.api.upload(again);
    expect(body.results).toEqual([first]);
    expect(sentBy(upstream, from)).toEqual([]);
  });

  test("are judged by the present names of fields", async () => {
    const phone = newPhone(gateway);
    phone.add({ op: "create", recordId: tempId(), schema: 1, data: { hours: 1 } });
    phone.add({ op: "create", recordId: tempId(), schema: 1, data: { peer: "7" } });
    expect(linesOf(await phone.replay())).toEqual(["rejected not-allowed", "applied"]);
  });

  test("and those of the present one pass byte for byte", async () => {
    const phone = clerk();
    const from = upstream.requests.length;
    const data =
      '{"z": 12345678901234567890, "hours":1.50,  "a":"\\u0000\\ud800", "peer":null, "10":1, "9":{}}';
    const mutation = `{"seq":1,"id":"${crypto.randomUUID()}","entity":"activity","op":"create","recordId":"${tempId()}","schema":3,"data":${data}}`;
    const batch = `{"clientId":"${phone.clientId}","previousSeq":0,"mutations":[${mutation}]}`;
    await phone.api.post("/v1/batches", batch);
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
    expect(sentBy(upstream, from)).toEqual([`POST ${data}`]);
  });

  test("that can't be brought there are parked with the reason, never dropped and never sent; the rest goes on", async () => {
    const phone = clerk();
    const from = upstream.requests.length;
    const secret = "not to be shown";
    const bad = [
      { schema: 4, data: { minutes: 1 } },
      { schema: 0, data: { minutes: 1 } },
      { schema: "3.1", data: { minutes: 1 } },
      { schema: 1, data: { hours: secret } },
      { schema: 2, data: { hours: 1, n: 0 }, base: { hours: secret } },
    ].map((rest) => phone.add({ op: "create", recordId: tempId(), ...rest }));
    const [first] = bad;
    const behind = [
      phone.add({ op: "update", recordId: first?.recordId ?? "", schema: 3, data: { n: 1 } }),
      phone.add({ op: "update", recordId: first?.recordId ?? "", schema: 4, data: { n: 2 } }),
      phone.add({ op: "create", recordId: tempId(), schema: 3, dependsOn: [first?.id], data: {} }),
      phone.add({ op: "delete", recordId: first?.recordId ?? "", schema: 4 }),
    ];
    const free = phone.add({ op: "create", recordId: tempId(), schema: 3, data: { n: 3 } });
    const results = await phone.replay();
    expect(linesOf(results)).toEqual([
      ...bad.map(() => "parked schema-unsupported"),
      ...behind.map(() => "pending"),
      "applied",
    ]);
    expect(behind.map((one) => resultOf(results, one).blockedBy)).toEqual(behind.map(() => first?.id));
    expect(resultOf(results, free).status).toBe("applied");
    expect(bad.map((one) => resultOf(results, one).problem?.detail)).toEqual([
      "The mutation is of schema 4; the configuration knows those up to 3.",
      "No upcaster takes schema 0.",
      "The mutation's schema is not the number of a version.",
      expect.stringMatching(/^The upcaster hours are minutes \(2 to 3\) can't take the data: .*T2001/),
      expect.stringMatching(/^The upcaster hours are minutes \(2 to 3\) can't take the data: .*T2001/),
    ]);
    expect(sentBy(upstream, from)).toEqual(['POST {"n":3}']);
    expect(gateway.log.join("\n")).not.toContain(secret);
  });

  test("that refer to a record keep its delete waiting while they are parked, wherever the reference stands", async () => {
    const phone = clerk();
    const mentor = tempId();
    phone.add({ op: "create", entity: "mentor", recordId: mentor, schema: 3, data: {} });
    const parked = phone.add({
      op: "create",
      recordId: tempId(),
      schema: 4,
      data: { people: [{ is: mentor }] },
    });
    const gone = phone.add({ op: "delete", entity: "mentor", recordId: mentor });
    const results = await phone.replay();
    expect(resultOf(results, gone)).toMatchObject({ status: "pending", blockedBy: parked.id });
  });

  test("of a delete nothing is asked: it has no data to misread", async () => {
    const phone = clerk();
    const activity = tempId();
    phone.add({ op: "create", recordId: activity, schema: 3, data: {} });
    phone.add({ op: "delete", recordId: activity, schema: 9 });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
  });
});

describe("in a merge", { timeout: 60_000 }, () => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    const update = { class: "conditional" };
    const entity = { ...versions, conflict: "merge", version: { header: "etag" }, update };
    gateway = await startGateway({
      queues: "postgres",
      upstreams: crm(upstream.url, { upstream: quiet, entity }),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  /** A phone has seen an hour; then somebody else makes it one and a half. */
  async function changedByOthers() {
    const phone = newPhone(gateway);
    phone.add({ op: "create", recordId: tempId(), schema: 3, data: { minutes: 60, note: "a" } });
    const [{ recordId = "", version } = {}] = await phone.replay();
    upstream.change("activities", recordId, '{"minutes":90}');
    const edit = (data: object, base: object): void =>
      void phone.add({ op: "update", recordId, schema: 2, baseVersion: version ?? null, data, base });
    return { phone, edit, recordId };
  }

  test("what the old app did not touch stays as others made it: `base` goes through the steps as `data` does", async () => {
    const { phone, edit } = await changedByOthers();
    const from = upstream.requests.length;
    edit({ hours: 1, note: "b" }, { hours: 1, note: "a" });
    expect(linesOf(await phone.replay())).toEqual(["applied"]);
    const patches = sentBy(upstream, from).filter((line) => line.startsWith("PATCH"));
    expect(patches.at(-1)).toBe('PATCH {"note":"b"}');
  });

  test("what both have touched is a conflict", async () => {
    const { phone, edit } = await changedByOthers();
    edit({ hours: 2 }, { hours: 1 });
    expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
  });

  test("and a `base` that can't be brought there parks: nothing is compared with a guess", async () => {
    const { phone, edit } = await changedByOthers();
    const from = upstream.requests.length;
    edit({ note: "b" }, { hours: "one", note: "a" });
    expect(linesOf(await phone.replay())).toEqual(["parked schema-unsupported"]);
    expect(sentBy(upstream, from)).toEqual([]);
  });
});

describe("what a step gives that is no object parks", { timeout: 60_000 }, () => {
  const evaluator = openEvaluator();
  afterAll(async () => await evaluator.close());

  test.for([
    ["nothing", "missing", /gave nothing/],
    ["an array", "[$]", /something else than an object/],
    ["a text", '"x"', /something else than an object/],
    ["null", "null", /something else than an object/],
    ["a function", "$sum", /gave a function/],
    ["more than any upstream takes", '{"a": $pad("", 9000000)}', /more than 8388608 characters/],
    ["nothing of `base`", '$part = "base" ? missing : $', /gave nothing/],
  ] as const)("%s", async ([, data, detail]) => {
    const entity = { schema: 2, upcast: [{ from: 1, to: 2, name: "a", data }] } as unknown as EntityConfig;
    const upcast = compileUpcast(entity, { evaluator, place: "upstreams.crm.entities.activity" });
    const sent = { op: "update", schema: 1, data: "{}", base: "{}" } as const;
    const failure: unknown = await upcast(sent).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(UpcastError);
    expect((failure as UpcastError).message).toMatch(detail);
    expect((failure as UpcastError).message).toContain("upcaster a (1 to 2)");
  });
});

describe("what was parked for its version", { timeout: 60_000 }, () => {
  test("goes on in order when the configuration was mended, and it is sent again", async () => {
    await using upstream = await startScriptedUpstream({ etags: true });
    await using cleanup = new AsyncDisposableStack();
    const database = await createTestDatabase();
    cleanup.defer(async () => await database.drop());
    const start = async (entity: object): Promise<TestGateway> =>
      await startGateway({
        queues: "postgres",
        database,
        upstreams: crm(upstream.url, { upstream: quiet, entity }),
      });
    const before = await start({ schema: 3, upcast: [toMinutes] });
    const phone = newPhone(before);
    const activity = tempId();
    const parked = phone.add({ op: "create", recordId: activity, schema: 1, data: { peer: "7", hours: 1 } });
    phone.add({ op: "update", recordId: activity, schema: 1, data: { hours: 2 } });
    expect(linesOf(await phone.replay())).toEqual(["parked schema-unsupported", "pending"]);
    await before.close();

    await using mended = await start(versions);
    const { api } = newPhone(mended);
    await newOperator(mended).command(parked.id, { command: "retry", reason: "the step was added" });
    const lines = async (): Promise<string[]> => {
      const { body } = await api.get(`/v1/mutations?clientId=${phone.clientId}`);
      return linesOf(body.results);
    };
    await expect.poll(lines, { timeout: 20_000 }).toEqual(["applied", "applied"]);
    expect(sentBy(upstream)).toEqual(['POST {"mentor":"7","minutes":60}', 'PATCH {"minutes":120}']);
  });

  test("can be given up, or was made by hand: then the record is what the upstream has, here and in the shadow", async () => {
    const [primary, shadow] = await startSystems();
    await using cleanup = new AsyncDisposableStack();
    for (const system of [primary, shadow]) cleanup.use(system);
    const upstreams = withShadow(primary.url, shadow.url) as Upstreams;
    Object.assign(upstreams.crm.entities["activity"] ?? {}, versions);
    await using gateway = await startGateway({ queues: "postgres", upstreams });
    await caughtUp(gateway);
    const operator = newOperator(gateway);
    const phone = newPhone(gateway);
    const [mentor, kept] = [tempId(), tempId()];
    phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
    phone.add({ op: "create", recordId: kept, schema: 1, data: { peer: mentor, hours: 1 } });
    const [create, update, givenUp] = [
      phone.add({ op: "create", recordId: tempId(), schema: 4, data: { time: "1h" } }),
      phone.add({ op: "update", recordId: kept, schema: 4, data: { time: "2h" } }),
      phone.add({ op: "create", recordId: tempId(), schema: 4, data: { time: "3h" } }),
    ];
    const [{ recordId: mentorId = "" } = {}, { recordId = "" } = {}] = await phone.replay();
    primary.seed("activities", [
      '{"id":900,"minutes":60}',
      `{"id":${recordId},"mentor":"${mentorId}","minutes":120}`,
    ]);
    await operator.command(create.id, { command: "applied", recordId: "900" });
    await operator.command(update.id, { command: "applied" });
    await operator.command(givenUp.id, { command: "reject" });
    for (const { id } of [create, update, givenUp]) await operator.done(id);
    const results = await phone.settled();
    expect([create, update, givenUp].map((one) => toLine(resultOf(results, one)))).toEqual([
      "applied",
      "applied",
      "rejected rejected-by-operator",
    ]);
    await caughtUp(gateway);
    const held = await bothHold({ gateway, primary, shadow } as Parameters<typeof bothHold>[0]);
    expect(held.shadow).toEqual(held.primary);
    const { body } = await phone.api.get("/v1/changes");
    const shown = (body.changes as { data?: object }[]).map(({ data }) => data);
    expect(shown).toEqual(
      expect.arrayContaining([
        { id: 900, minutes: 60 },
        { id: Number(recordId), mentor: mentorId, minutes: 120 },
      ]),
    );
    for (const { body: sent } of shadow.requests) expect(sent.toString()).not.toMatch(/time|hours|peer/);
    expect(await rowsOf(gateway.database, "select 1 from delivery")).toEqual([]);
  });

  test("is not taken as applied while the record can't be read: what its data means is not known", async () => {
    await using upstream = await startScriptedUpstream({ etags: true });
    const upstreams = onlyPrimary(upstream.url) as Upstreams;
    Object.assign(upstreams.crm.entities["activity"] ?? {}, versions, { fromUpstream: "$error('no')" });
    await using gateway = await startGateway({ queues: "postgres", upstreams });
    const phone = newPhone(gateway);
    const parked = phone.add({ op: "create", recordId: tempId(), schema: 4, data: { time: "1h" } });
    await phone.replay();
    upstream.seed("activities", ['{"id":900}']);
    const operator = newOperator(gateway);
    await operator.command(parked.id, { command: "applied", recordId: "900" });
    expect(await operator.done(parked.id)).toEqual([
      "refused: the record can't be read, and the data is of another schema",
    ]);
    expect(linesOf(await phone.outcomes())).toEqual(["parked schema-unsupported"]);
  });
});

interface Upstreams {
  crm: { entities: Record<string, object> };
}
