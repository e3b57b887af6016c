import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Answer, Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { newOutbox, type QueuedMutation } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

const entity = { scopes: ["user:{/mentor}", "group:{/group}"] };

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url, { entity }) });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const mallory: TestUser = { sub: "mallory", groups: ["west"], roles: ["coordinator"] };

/** One mutation under a client of its own. */
async function send(
  user: TestUser,
  mutation: Partial<QueuedMutation> & Pick<QueuedMutation, "op" | "recordId">,
): Promise<Answer> {
  const outbox = newOutbox();
  outbox.add(mutation);
  return await gateway.as(user).upload(outbox.batch());
}

/** A user with one record that nobody else sees. */
async function someoneWithARecord(): Promise<{
  victim: TestUser;
  id: string;
  temp: string;
  clientId: string;
  mutationId: string;
}> {
  const victim = { sub: `victim-${randomUUID()}` };
  const outbox = newOutbox();
  const { recordId: temp, id: mutationId } = outbox.add({
    op: "create",
    recordId: tempId(),
    data: { mentor: victim.sub, diagnosis: "secret" },
  });
  const { body } = await gateway.as(victim).upload(outbox.batch());
  expect(body.results).toMatchObject([{ status: "applied" }]);
  return { victim, id: body.results[0].recordId, temp, clientId: outbox.clientId, mutationId };
}

function seeded(data: object): string {
  const id = randomUUID();
  upstream.seed("activities", [JSON.stringify({ id, ...data })]);
  return id;
}

/** A verdict without what tells one mutation from another, and the calls that it cost. */
async function probe(mutation: Partial<QueuedMutation> & Pick<QueuedMutation, "op" | "recordId">) {
  const calls = upstream.requests.length;
  const { status, body } = await send(mallory, mutation);
  const [{ seq: _seq, id: _id, ...verdict }] = body.results;
  const methods = upstream.requests.slice(calls).map(({ method }) => method);
  return { status, verdict, idMappings: body.idMappings, methods };
}

describe("a record outside the scopes is as if it did not exist:", () => {
  const changes: [name: string, mutation: Partial<QueuedMutation> & { op: "update" | "delete" }][] = [
    ["an update", { op: "update", data: { diagnosis: "none" } }],
    [
      "an update that puts it into the user's scope",
      { op: "update", data: { mentor: "mallory", group: "west" } },
    ],
    ["an update of an old version", { op: "update", baseVersion: "999", data: {} }],
    ["an update of the current version", { op: "update", baseVersion: "1", base: {}, data: {} }],
    ["a delete", { op: "delete" }],
    ["a delete of an old version", { op: "delete", baseVersion: "999" }],
  ];

  test.each(changes)("%s by its server ID", async (_name, change) => {
    const { id: knownHere } = await someoneWithARecord();
    const onlyInTheUpstream = seeded({ mentor: "somebody" });
    const nowhere = randomUUID();
    const effects = upstream.effects.length;
    const [known, unseen, none] = [
      await probe({ ...change, recordId: knownHere }),
      await probe({ ...change, recordId: onlyInTheUpstream }),
      await probe({ ...change, recordId: nowhere }),
    ];
    expect(none).toEqual({
      status: 200,
      verdict: {
        status: "rejected",
        problem: expect.objectContaining({ type: "urn:tidegate:problem:not-found" }),
      },
      idMappings: [],
      methods: ["GET"],
    });
    expect([known, unseen]).toEqual([none, none]);
    expect(upstream.effects).toHaveLength(effects);
  });

  test("also after it was deleted", async () => {
    const { victim, id } = await someoneWithARecord();
    await send(victim, { op: "delete", recordId: id });
    const none = await probe({ op: "update", recordId: randomUUID() });
    expect(await probe({ op: "update", recordId: id })).toEqual(none);
  });

  test("also while the upstream refuses to look for it", async () => {
    const { id } = await someoneWithARecord();
    const away = upstream.always({ method: "GET" }, (exchange) => exchange.send({ status: 400 }));
    const none = await probe({ op: "update", recordId: randomUUID() });
    expect(await probe({ op: "update", recordId: id })).toEqual(none);
    away();
    expect(none.verdict.problem.type).toBe("urn:tidegate:problem:not-found");
  });

  test("also by its temp ID, which gives no server ID away", async () => {
    const { temp, id } = await someoneWithARecord();
    const effects = upstream.effects.length;
    for (const op of ["update", "delete"] as const) {
      const { verdict, idMappings } = await probe({ op, recordId: temp });
      expect([verdict.status, idMappings]).toEqual(["rejected", []]);
      expect(JSON.stringify(verdict)).not.toContain(`"${id}"`);
    }
    const taken = await probe({ op: "create", recordId: temp, data: { mentor: "mallory" } });
    expect(taken.verdict).toMatchObject({ status: "rejected" });
    expect(taken.verdict).not.toHaveProperty("recordId");
    expect(upstream.effects).toHaveLength(effects);
  });

  test("also in the outcomes of others", async () => {
    const { mutationId, clientId } = await someoneWithARecord();
    const api = gateway.as(mallory);
    const [known, unknown] = [
      await api.get(`/v1/mutations/${mutationId}`),
      await api.get(`/v1/mutations/${randomUUID()}`),
    ];
    const { instance: _one, ...refusal } = known.body;
    const { instance: _two, ...none } = unknown.body;
    expect([known.status, refusal]).toEqual([404, none]);
    const paths = ["/v1/changes", "/v1/mutations", "/v1/id-mappings"];
    const answers = await Promise.all(paths.map((path) => api.get(`${path}?clientId=${clientId}`)));
    expect(answers.map(({ status }) => status)).toEqual([403, 403, 403]);
  });

  test("also in the feed", async () => {
    const { id, victim } = await someoneWithARecord();
    await send(victim, { op: "update", recordId: id, data: { diagnosis: "another" } });
    for (const clientId of ["", `?clientId=${randomUUID()}`]) {
      const { text } = await gateway.as(mallory).get(`/v1/changes${clientId}`);
      expect(text).not.toMatch(/secret|another/);
      expect(text).not.toContain(`"id":"${id}"`);
    }
  });
});

describe("a record that moves between scopes", () => {
  test("is revoked for those who lose it, with nothing of its new state, and comes to those who get it", async () => {
    const [losing, gaining] = [`east-${randomUUID()}`, `west-${randomUUID()}`];
    const author = { sub: `mentor-${randomUUID()}`, groups: [losing, gaining] };
    const { body } = await send(author, {
      op: "create",
      recordId: tempId(),
      data: { group: losing, note: "before" },
    });
    const id: string = body.results[0].recordId;
    const api = (group: string): Api => gateway.as({ sub: `reader of ${group}`, groups: [group] });
    const first = await api(losing).get("/v1/changes");
    expect(first.body.changes).toMatchObject([{ type: "upsert", id, data: { note: "before" } }]);
    expect((await api(gaining).get("/v1/changes")).body.changes).toEqual([]);

    await send(author, { op: "update", recordId: id, data: { group: gaining, note: "after" } });
    const then = await api(losing).get(`/v1/changes?cursor=${first.body.cursor}`);
    expect(then.body.changes).toEqual([{ type: "revoke", entity: "activity", id }]);
    expect((await api(gaining).get("/v1/changes")).body.changes).toMatchObject([
      { type: "upsert", data: { note: "after" } },
    ]);
    expect((await api(losing).get("/v1/changes")).text).not.toContain("after");
    const seesBoth = await gateway.as(author).get("/v1/changes");
    expect(seesBoth.body.changes.map(({ type }: { type: string }) => type)).toEqual(["upsert"]);

    const late = await send(
      { sub: "late", groups: [losing] },
      { op: "update", recordId: id, data: { note: "late" } },
    );
    expect(late.body.results).toMatchObject([
      { status: "rejected", problem: { type: "urn:tidegate:problem:not-found" } },
    ]);
  });

  test("shows the loser of a conflict no state that the token may not see", async () => {
    const group = `north-${randomUUID()}`;
    const mentor = { sub: `mentor-${randomUUID()}` };
    const colleague = { sub: `colleague-${randomUUID()}`, groups: [group] };
    const { body } = await send(mentor, {
      op: "create",
      recordId: tempId(),
      data: { mentor: mentor.sub, group },
    });
    const [{ recordId, version }] = body.results;
    await send(mentor, { op: "update", recordId, data: { note: "first" } });
    const outbox = newOutbox();
    outbox.add({ op: "update", recordId, baseVersion: version, data: { note: "mine" } });
    const batch = outbox.batch();
    const conflict = await gateway.as(colleague).upload(batch);
    expect(conflict.body.results).toMatchObject([
      { status: "conflict", current: { data: { note: "first" } } },
    ]);
    await send(mentor, { op: "update", recordId, data: { group: null, note: "moved" } });
    const again = await gateway.as(colleague).upload(batch);
    expect(again.body.results).toMatchObject([{ status: "conflict" }]);
    expect(again.body.results[0]).not.toHaveProperty("current");
    const listed = await gateway.as(colleague).get(`/v1/changes?clientId=${batch.clientId}`);
    expect([again.text, listed.text].join()).not.toContain("moved");
  });
});

test("names in a record that no token could carry are nobody's, and hold up nothing", async () => {
  const author = { sub: `mentor-${randomUUID()}` };
  const strange = [
    "x".repeat(5_000),
    "\0",
    "\ud800",
    "",
    { toString: 1 },
    true,
    null,
    [["nested"]],
    ["x".repeat(3_000), author.sub],
  ];
  const outbox = newOutbox();
  for (const group of strange) {
    outbox.add({ op: "create", recordId: tempId(), data: { mentor: author.sub, group } });
  }
  const { body } = await gateway.as(author).upload(outbox.batch());
  expect(body.results.map(({ status }: { status: string }) => status)).toEqual(strange.map(() => "applied"));
  const { body: feed } = await gateway.as(author).get("/v1/changes");
  expect(feed.changes).toHaveLength(strange.length);
});

test("only the client that created a record is told its temp ID, and only with its own clientId", async () => {
  const { victim, id, temp, clientId } = await someoneWithARecord();
  const read = async (query: string) => (await gateway.as(victim).get(`/v1/changes${query}`)).body.changes;
  expect(await read(`?clientId=${clientId}`)).toMatchObject([
    { type: "upsert", id, tempId: temp },
    { type: "outcome", result: { status: "applied", tempId: temp } },
  ]);
  for (const query of ["", `?clientId=${randomUUID()}`]) {
    const changes = await read(query);
    expect(changes).toMatchObject([{ type: "upsert", id }]);
    expect(changes[0]).not.toHaveProperty("tempId");
  }
});
