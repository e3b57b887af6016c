import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Answer, Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox, type Batch, type Outbox } from "../fixtures/outbox.ts";
import { openRowCounter, type RowCounter } from "../fixtures/row-counts.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let kari: Api;
let rows: RowCounter;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url) });
  kari = gateway.as();
  rows = await openRowCounter(gateway.database);
});
afterAll(async () => {
  await rows.close();
  await gateway.close();
  await upstream.stop();
});

const create = (outbox: Outbox, data: object = { note: randomUUID() }) =>
  outbox.add({ op: "create", recordId: tempId(), data });

/** What of the upstream's effects came from these mutations. */
const effectsOf = ({ mutations }: Batch) =>
  upstream.effects.filter(({ request }) =>
    mutations.some(({ id }) => request.headers["idempotency-key"] === id),
  );

const statuses = ({ body }: Answer): string[] =>
  body.results.map((result: { status: string }) => result.status);
const codes = ({ body }: Answer): (string | undefined)[] =>
  body.results.map((result: { problem?: { type: string } }) => result.problem?.type.split(":").at(-1));
const anApplied = async (): Promise<{ batch: Batch; answer: Answer; outbox: Outbox }> => {
  const outbox = newOutbox();
  create(outbox);
  const batch = outbox.batch();
  return { outbox, batch, answer: await kari.upload(batch) };
};

test("members of the envelope that a serializer wrote as null count as absent", async () => {
  const outbox = newOutbox();
  create(outbox);
  const answer = await kari.upload({ ...outbox.batch(), lostThrough: null, sentAt: null, cursor: null });
  expect([answer.status, statuses(answer)]).toEqual([200, ["applied"]]);
});

test("a batch that comes again gets its recorded outcomes and has no second effect", async () => {
  const outbox = newOutbox();
  const record = create(outbox);
  outbox.add({ op: "update", recordId: record.recordId, data: { note: "changed" } });
  const batch = outbox.batch();
  const first = await kari.upload(batch);
  const counts = await rows.count();
  const second = await kari.upload(batch);
  const third = await kari.upload({ ...batch, previousSeq: 2 });
  expect([second.body, third.body]).toEqual([first.body, first.body]);
  expect([second.status, statuses(second)]).toEqual([200, ["applied", "applied"]]);
  expect(await rows.count()).toEqual(counts);
  expect(effectsOf(batch)).toHaveLength(1);
});

test("eight uploads of one batch at the same moment have one set of effects", async () => {
  const outbox = newOutbox();
  for (let index = 0; index < 20; index++) create(outbox);
  const batch = outbox.batch();
  const answers = await Promise.all(Array.from({ length: 8 }, () => kari.upload(batch)));
  for (const answer of answers) expect(answer.body).toEqual(answers[0]?.body);
  expect(statuses(answers[0]!)).toEqual(batch.mutations.map(() => "applied"));
  expect(effectsOf(batch).map(({ request }) => request.headers["idempotency-key"])).toEqual(
    batch.mutations.map(({ id }) => id),
  );
});

test("two clients of one user that bring the same mutations at once, in opposite orders, have one set of effects", async () => {
  const outbox = newOutbox();
  for (let index = 0; index < 40; index++) create(outbox);
  const batch = outbox.batch();
  const turned = {
    clientId: randomUUID(),
    previousSeq: 0,
    mutations: batch.mutations.toReversed().map((mutation, index) => ({ ...mutation, seq: index + 1 })),
  };
  const answers = await Promise.all([kari.upload(batch), kari.upload(turned)]);
  expect(answers.map(statuses)).toEqual(
    [batch, turned].map(({ mutations }) => mutations.map(() => "applied")),
  );
  expect(effectsOf(batch)).toHaveLength(40);
});

describe("another content under a used id", () => {
  test("is rejected with the recorded result beside it, and the first one stands", async () => {
    const { batch, answer, outbox } = await anApplied();
    outbox.add({ ...batch.mutations[0]!, seq: 2, data: { note: "another" } });
    const next = outbox.batch();
    const reused = await kari.upload(next);
    expect([statuses(reused), codes(reused)]).toEqual([["rejected"], ["idempotency-key-reused"]]);
    expect(reused.body.results[0].original).toEqual(answer.body.results[0]);
    expect((await kari.upload({ ...next, previousSeq: 1 })).body).toEqual(reused.body);
    expect((await kari.get(`/v1/mutations/${batch.mutations[0]!.id}`)).body).toEqual(answer.body.results[0]);
    expect(effectsOf(batch)).toHaveLength(1);
  });

  test("of another user is rejected without a word about the first one", async () => {
    const { batch } = await anApplied();
    const theft = { ...batch, clientId: randomUUID() };
    const reused = await gateway.as({ sub: "mallory" }).upload(theft);
    expect(reused.body.results).toEqual([
      {
        seq: 1,
        id: batch.mutations[0]!.id,
        status: "rejected",
        problem: expect.objectContaining({ type: "urn:tidegate:problem:idempotency-key-reused" }),
      },
    ]);
    expect(reused.body.idMappings).toEqual([]);
    expect(effectsOf(batch)).toHaveLength(1);
  });

  test("in one batch is rejected, and the same content counts once", async () => {
    const outbox = newOutbox();
    const first = create(outbox);
    outbox.add({ ...first, seq: 2 });
    outbox.add({ ...first, seq: 3, data: { note: "another" } });
    const last = create(outbox);
    last.seq = 4;
    const batch = outbox.batch();
    const answer = await kari.upload(batch);
    expect(statuses(answer)).toEqual(["applied", "applied", "rejected", "applied"]);
    expect(answer.body.results.map(({ seq }: { seq: number }) => seq)).toEqual([1, 2, 3, 4]);
    expect(answer.body.results[2].original).toMatchObject({ id: first.id, status: "applied" });
    expect([answer.body.ackedSeq, effectsOf(batch).length]).toEqual([4, 2]);
    expect((await kari.upload(batch)).body).toEqual(answer.body);
  });
});

describe("sameness of a mutation that comes again", () => {
  const id = randomUUID();
  const record = tempId();
  const data = '{"b":[1.0,true],"a":"Å/","n":9007199254740993,"m":{"x":null}}';
  const first = `{"seq":1,"id":"${id}","entity":"activity","op":"create","recordId":"${record}","occurredAt":"2026-01-01T00:00:00Z","data":${data}}`;
  const clientId = randomUUID();
  const send = async (mutation: string): Promise<Answer> =>
    await kari.upload(`{"clientId":"${clientId}","previousSeq":0,"mutations":[${mutation}]}` as never);

  beforeAll(async () => void (await send(first)));

  const same: [difference: string, text: string][] = [
    ["nothing", first],
    [
      "white space",
      first
        .replaceAll(":", " :\n\t")
        .replaceAll(" :\n\t00 :\n\t00Z", ":00:00Z")
        .replace("urn :\n\tuuid :\n\t", "urn:uuid:"),
    ],
    [
      "the order of keys",
      first.replace(data, '{"m":{"x":null},"n":9007199254740993,"a":"Å/","b":[1.0,true]}'),
    ],
    ["escapes", first.replace('"Å/"', String.raw`"\u00c5\/"`).replace('"a":', String.raw`"\u0061":`)],
    ["the spelling of numbers", first.replace("1.0", "10e-1")],
    ["seq", first.replace('"seq":1', '"seq":7')],
    ["occurredAt", first.replace("2026-01-01", "2026-02-02")],
    [
      "absence spelled as null",
      first.replace('"data"', '"base":null,"baseVersion":null,"schema":null,"dependsOn":null,"data"'),
    ],
    ["the id in capitals", first.replace(id, id.toUpperCase())],
  ];
  test.each(same)("ignores %s", async (_difference, text) => {
    const answer = await send(text);
    expect([statuses(answer), codes(answer)]).toEqual([["applied"], [undefined]]);
  });

  const other: [difference: string, text: string][] = [
    ["an integer that a double can't tell apart", first.replace("9007199254740993", "9007199254740992")],
    ["an integer and the same digits as text", first.replace("9007199254740993", '"9007199254740993"')],
    ["a null inside the data", first.replace('{"x":null}', "{}")],
    ["the order of a list", first.replace("[1.0,true]", "[true,1.0]")],
    ["the record", first.replace(record, tempId())],
    ["the operation", first.replace('"create"', '"update"')],
    ["the entity", first.replace('"activity"', '"mentor"')],
    ["a base", first.replace('"data"', '"base":{},"data"')],
    ["a base version", first.replace('"data"', '"baseVersion":"1","data"')],
    ["a dependence", first.replace('"data"', `"dependsOn":["${id}"],"data"`)],
    ["the schema", first.replace('"data"', '"schema":3,"data"')],
    ["a repeated key", first.replace('{"b"', '{"a":"","b"')],
  ];
  test.each(other)("does not ignore %s", async (_difference, text) => {
    const answer = await send(text);
    expect([statuses(answer), codes(answer)]).toEqual([["rejected"], ["idempotency-key-reused"]]);
  });
});

describe("a client's place in its outbox:", () => {
  test("a missing batch is told with lastSeq, nothing is taken, and sending again from there works", async () => {
    const { outbox, batch: first } = await anApplied();
    create(outbox);
    const lost = outbox.batch();
    create(outbox);
    const ahead = outbox.batch();
    const counts = await rows.count();
    const gap = await kari.upload(ahead);
    expect([gap.status, gap.body.type, gap.body.lastSeq]).toEqual([
      409,
      "urn:tidegate:problem:sequence-gap",
      1,
    ]);
    expect(await rows.count()).toEqual(counts);
    const resent = await kari.upload({
      ...ahead,
      previousSeq: 1,
      mutations: [...lost.mutations, ...ahead.mutations],
    });
    expect([resent.status, statuses(resent)]).toEqual([200, ["applied", "applied"]]);
    expect(effectsOf(first)).toHaveLength(1);
  });

  test("a gateway that knows nothing of a client asks for everything", async () => {
    const counts = await rows.count();
    const gap = await kari.upload({ clientId: randomUUID(), previousSeq: 118, mutations: [] });
    expect([gap.status, gap.body.lastSeq]).toEqual([409, 0]);
    expect(await rows.count()).toEqual(counts);
  });

  test("an unknown id at a used position takes nothing; under a new clientId it all arrives once", async () => {
    const outbox = newOutbox();
    create(outbox);
    create(outbox);
    const before = outbox.batch();
    await kari.upload(before);
    // The phone's backup is restored: it knows the first mutation only, and goes on from there.
    const [kept] = before.mutations;
    const clone = newOutbox(outbox.clientId);
    clone.add(kept!);
    create(clone);
    create(clone);
    const cloned = clone.batch();
    const counts = await rows.count();
    const reused = await kari.upload(cloned);
    expect([reused.status, reused.body.type, reused.body.lastSeq]).toEqual([
      409,
      "urn:tidegate:problem:sequence-reused",
      2,
    ]);
    expect(await rows.count()).toEqual(counts);

    const renumbered = { ...cloned, clientId: randomUUID() };
    const { status, body } = await kari.upload(renumbered);
    const recorded = await kari.get(`/v1/mutations/${kept!.id}`);
    expect([status, body.ackedSeq, body.results[0]]).toEqual([200, 3, recorded.body]);
    expect(effectsOf(cloned)).toHaveLength(3);
  });

  test("what it lost for ever is recorded as an incident, said in the log, and the rest is accepted", async () => {
    const { outbox } = await anApplied();
    create(outbox);
    const lost = outbox.batch();
    const kept = create(outbox);
    const { mutations } = outbox.batch();
    const { incident: before = 0 } = await rows.count();
    const body = { clientId: outbox.clientId, previousSeq: 1, lostThrough: 2, mutations };
    const answer = await kari.upload(body);
    expect([answer.status, answer.body.ackedSeq, statuses(answer)]).toEqual([200, 3, ["applied"]]);
    expect((await rows.count())["incident"]).toBe(before + 1);
    expect(
      gateway.log.some((line) => line.includes(outbox.clientId) && line.includes('"throughSeq":2')),
    ).toBe(true);
    const losses = async (): Promise<string | undefined> => {
      const text = await (await fetch(new URL("/metrics", gateway.url))).text();
      return text.split("\n").find((line) => line.startsWith("tidegate_client_losses_total{"));
    };
    expect(await losses()).toBe('tidegate_client_losses_total{tenant="ours"} 1');
    await kari.upload({ ...body, previousSeq: 3 });
    expect(await losses()).toBe('tidegate_client_losses_total{tenant="ours"} 1');
    expect((await rows.count())["incident"]).toBe(before + 1);
    expect([effectsOf(lost), effectsOf({ ...lost, mutations: [kept] })]).toMatchObject([[], [{}]]);
  });

  test("an empty batch asks where we are", async () => {
    const { outbox } = await anApplied();
    const { status, body } = await kari.upload({ clientId: outbox.clientId, previousSeq: 0, mutations: [] });
    const { body: capabilities } = await kari.get("/v1/capabilities");
    expect([status, body]).toEqual([
      200,
      { ackedSeq: 1, results: [], idMappings: [], epoch: capabilities.epoch },
    ]);
  });

  test("gaps are normal, up to 2^53 - 1", async () => {
    const outbox = newOutbox();
    const seqs = [5, 9_000_000_000, Number.MAX_SAFE_INTEGER - 1, Number.MAX_SAFE_INTEGER];
    for (const seq of seqs) create(outbox).seq = seq;
    const batch = outbox.batch();
    const { body } = await kari.upload(batch);
    expect(body.results.map(({ seq, status }: { seq: number; status: string }) => [seq, status])).toEqual(
      seqs.map((seq) => [seq, "applied"]),
    );
    expect(body.ackedSeq).toBe(Number.MAX_SAFE_INTEGER);
    const listed = await kari.get(`/v1/mutations?clientId=${batch.clientId}&afterSeq=9000000000`);
    expect(listed.body.results).toEqual(body.results.slice(2));
  });

  test("it belongs to the user who used it first", async () => {
    const { outbox } = await anApplied();
    const counts = await rows.count();
    const mallory = gateway.as({ sub: "mallory", roles: ["coordinator"] });
    create(outbox);
    const answers = [
      await mallory.upload(outbox.batch()),
      await mallory.upload({ clientId: outbox.clientId, previousSeq: 0, mutations: [] }),
      await mallory.get(`/v1/changes?clientId=${outbox.clientId}`),
      await mallory.get(`/v1/mutations?clientId=${outbox.clientId}`),
      await mallory.get(`/v1/id-mappings?clientId=${outbox.clientId.toUpperCase()}`),
    ];
    expect(answers.map(({ status, body }) => [status, body.type])).toEqual(
      answers.map(() => [403, "urn:tidegate:problem:client-owned"]),
    );
    expect(await rows.count()).toEqual(counts);
  });
});
