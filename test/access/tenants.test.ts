import { afterAll, beforeAll, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstreams: [ours: ScriptedUpstream, theirs: ScriptedUpstream];
let gateway: TestGateway;

beforeAll(async () => {
  upstreams = [await startScriptedUpstream(), await startScriptedUpstream()];
  const [ours, theirs] = upstreams;
  gateway = await startGateway({ upstreams: crm(ours.url), otherUpstreams: crm(theirs.url) });
});
afterAll(async () => {
  await gateway.close();
  for (const upstream of upstreams) await upstream.stop();
});

test("two tenants with the same user, client, mutation, temp and server IDs never meet", async () => {
  const [ours, theirs] = [gateway.as({ sub: "kari" }), gateway.as({ sub: "kari", iss: "other" })];
  const outbox = newOutbox();
  const mentor = tempId();
  outbox.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "NAME" } });
  const activity = outbox.add({ op: "create", recordId: tempId(), data: { mentor, note: "NAME" } });
  outbox.add({ op: "update", recordId: "2", data: { note: "NAME, changed" } });
  const text = JSON.stringify(outbox.batch());
  const answers = await Promise.all([
    ours.upload(text.replaceAll("NAME", "ours") as never),
    theirs.upload(text.replaceAll("NAME", "theirs") as never),
  ]);
  for (const { status, body } of answers) {
    expect([status, body.idMappings.map(({ serverId }: { serverId: string }) => serverId)]).toEqual([
      200,
      ["1", "2"],
    ]);
  }
  const [our, their] = upstreams.map((upstream) => upstream.records("activities").join());
  expect([our, their]).toEqual([
    '{"mentor":"1","note":"ours, changed","id":2}',
    '{"mentor":"1","note":"theirs, changed","id":2}',
  ]);

  const { clientId } = outbox;
  for (const path of ["/v1/snapshot", "/v1/changes", "/v1/mutations", "/v1/id-mappings"]) {
    expect((await ours.get(`${path}?clientId=${clientId}`)).text).not.toContain("theirs");
    expect((await theirs.get(`${path}?clientId=${clientId}`)).text).not.toContain("ours");
  }
  expect((await ours.get(`/v1/mutations/${activity.id}`)).body).toMatchObject({ status: "applied" });
});

test("what only the other tenant has is not there", async () => {
  const theirs = gateway.as({ sub: "ola", iss: "other" });
  const ours = gateway.as({ sub: "ola" });
  const outbox = newOutbox();
  const create = outbox.add({ op: "create", recordId: tempId(), data: { note: "theirs" } });
  const batch = outbox.batch();
  const { body } = await theirs.upload(batch);
  const cursor = (await theirs.get("/v1/changes")).body.cursor;

  const [known, unknown] = [
    await ours.get(`/v1/mutations/${create.id}`),
    await ours.get(`/v1/mutations/${crypto.randomUUID()}`),
  ];
  expect([known.status, known.body.detail]).toEqual([404, unknown.body.detail]);
  expect((await ours.get(`/v1/mutations?clientId=${batch.clientId}`)).body.results).toEqual([]);
  expect((await ours.get(`/v1/id-mappings?clientId=${batch.clientId}`)).body.idMappings).toEqual([]);
  expect((await ours.get(`/v1/changes?cursor=${cursor}`)).status).toBe(410);

  const guesses = newOutbox();
  guesses.add({ op: "update", recordId: create.recordId });
  guesses.add({ op: "create", recordId: tempId(), data: { mentor: create.recordId } });
  guesses.add({ op: "update", recordId: body.results[0].recordId });
  const { body: verdicts } = await ours.upload(guesses.batch());
  expect(
    verdicts.results.map(({ problem }: { problem: { type: string } }) => problem.type.split(":").at(-1)),
  ).toEqual(["unknown-reference", "unknown-reference", "not-found"]);
  const own = await ours.upload(batch);
  expect(own.body.results).toMatchObject([{ status: "applied" }]);
  expect(
    upstreams.map(
      ({ effects }) =>
        effects.filter(({ request }) => request.headers["idempotency-key"] === create.id).length,
    ),
  ).toEqual([1, 1]);
});
