import { describe, expect, onTestFinished, test } from "vitest";

import { faults } from "../../../test/fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { UpstreamError, type Connector } from "../connector.ts";
import { openRestConnector } from "./rest-connector.ts";

const key = { entity: "activity", idempotencyKey: "k" };
const change = { ...key, id: "7", patch: '{"minutes":50}', body: '{"minutes":50,"note":"a"}' };
const opaque = { class: "opaque", enabled: true } as const;
const conditional = { class: "conditional", enabled: true } as const;

async function setup(
  entity: Partial<EntityConfig>,
): Promise<{ upstream: ScriptedUpstream; connector: Connector; answers: (...bodies: string[]) => void }> {
  const upstream = await startScriptedUpstream();
  const connector = openRestConnector(aRestUpstream(upstream.url, { entity }));
  onTestFinished(async () => {
    await connector.close();
    await upstream.stop();
  });
  const answers = (...bodies: string[]): void =>
    upstream.script({}, ...bodies.map((body) => faults.status(200, { body })));
  return { upstream, connector, answers };
}

const sentTo = ({ requests }: ScriptedUpstream): string[] =>
  requests.map(({ method, path, body }) => `${method} ${path} ${body.toString()}`.trim());

describe("what is sent", () => {
  test("may be the change or the whole record, whatever the method", async () => {
    for (const [update, body] of [
      [{ method: "POST", ...opaque }, change.patch],
      [{ method: "POST", sends: "record", ...opaque }, change.body],
      [{ method: "PUT", sends: "change", ...opaque }, change.patch],
    ] as const) {
      const { upstream, connector, answers } = await setup({ update });
      answers("{}");
      await connector.update(change);
      expect(sentTo(upstream)).toEqual([`${update.method} /activities/7 ${body}`]);
    }
  });

  test("has the configured media type, and stands in its envelope", async () => {
    const contentType = "application/merge-patch+json";
    const update = { method: "PATCH", contentType, ...opaque } as const;
    const envelope = { request: "/data/attributes", answer: "/data" };
    const { upstream, connector, answers } = await setup({ update, envelope });
    answers('{"data":{"id":7,"minutes":50}}', '{"data":{"id":8}}', '{"data":{"id":7}}');
    const record = await connector.update(change);
    expect(record).toEqual({ id: "7", version: undefined, body: '{"id":7,"minutes":50}' });
    expect((await connector.create({ ...key, body: '{"minutes":1}' }))!.id).toBe("8");
    expect((await connector.read(change))!.body).toBe('{"id":7}');
    expect(sentTo(upstream).slice(0, 2)).toEqual([
      'PATCH /activities/7 {"data":{"attributes":{"minutes":50}}}',
      'POST /activities {"data":{"attributes":{"minutes":1}}}',
    ]);
    expect(upstream.requests.map(({ headers }) => headers["content-type"])).toEqual([
      contentType,
      "application/json",
      undefined,
    ]);
  });

  test("is a form where that is configured", async () => {
    const { upstream, connector, answers } = await setup({ encoding: "form" });
    answers('{"id":1}');
    await connector.create({ ...key, body: '{"minutes":45,"tags":["a"]}' });
    expect(sentTo(upstream)).toEqual(["POST /activities minutes=45&tags%5B%5D=a"]);
    expect(upstream.requests[0]!.headers["content-type"]).toBe("application/x-www-form-urlencoded");
  });

  test("a delete may be a POST elsewhere, with a body", async () => {
    const removal = { method: "POST", path: "{item}/archive", body: { archived: true }, ...opaque } as const;
    const { upstream, connector, answers } = await setup({ delete: removal });
    answers("{}");
    await connector.delete({ ...key, id: "a/b" });
    expect(sentTo(upstream)).toEqual(['POST /activities/a%2Fb/archive {"archived":true}']);
  });
});

describe("the version that must still be the record's", () => {
  const version = { pointer: "/version", number: true };
  const call = { ...change, version: "12" };

  test("goes in a query parameter", async () => {
    const update = { method: "PATCH", query: "rev", path: "{item}?by=us", ...conditional } as const;
    const remove = { method: "DELETE", query: "rev", ...conditional } as const;
    const { upstream, connector, answers } = await setup({ version, update, delete: remove });
    answers("{}", "{}");
    await connector.update({ ...call, version: "1 &" });
    await connector.delete(call);
    expect(sentTo(upstream)).toEqual([
      `PATCH /activities/7?by=us&rev=1+%26 ${change.patch}`,
      "DELETE /activities/7?rev=12",
    ]);
    expect(upstream.requests[0]!.headers["if-match"]).toBeUndefined();
  });

  test("goes in the body, as the number that it is", async () => {
    const update = { method: "PATCH", field: "/meta/version", ...conditional } as const;
    const { upstream, connector, answers } = await setup({ version, update });
    answers('{"version":13}');
    expect((await connector.update(call))!.version).toBe("13");
    expect(sentTo(upstream)).toEqual(['PATCH /activities/7 {"minutes":50,"meta":{"version":12}}']);
  });
});

test("an answer that is a receipt tells ID and version, and is not taken for the record", async () => {
  const answer = { id: "/id", version: { pointer: "/rev" } };
  const { connector, answers } = await setup({
    id: "/_id",
    version: { pointer: "/_rev" },
    create: { method: "POST", answer, ...opaque },
    update: { method: "PUT", answer, ...opaque },
  });
  answers('{"ok":true,"id":"x","rev":"1-a"}', '{"ok":true,"id":"x","rev":"2-b"}', '{"_id":"x","_rev":"2-b"}');
  expect(await connector.create({ ...key, body: "{}" })).toEqual({
    id: "x",
    version: "1-a",
    body: undefined,
  });
  expect(await connector.update(change)).toEqual({ id: "7", version: "2-b", body: undefined });
  expect(await connector.read(change)).toMatchObject({ version: "2-b", body: '{"_id":"x","_rev":"2-b"}' });
});

describe("a record below others", () => {
  const path = "/projects/{/project}/activities";

  test("is made, read, changed and deleted where it is", async () => {
    const { upstream, connector, answers } = await setup({ path });
    answers('{"id":12}', '{"id":12,"project":7}', '{"id":12}', "{}");
    const { id } = (await connector.create({ ...key, body: '{"project":7,"minutes":45}' }))!;
    expect(id).toBe("7/12");
    expect((await connector.read({ ...key, id }))!.id).toBe("7/12");
    await connector.update({ ...change, id });
    await connector.delete({ ...key, id });
    expect(sentTo(upstream).map((line) => line.split(" ", 2).join(" "))).toEqual([
      "POST /projects/7/activities",
      "GET /projects/7/activities/12",
      "PATCH /projects/7/activities/12",
      "DELETE /projects/7/activities/12",
    ]);
    const moving = connector.update({ ...change, id, patch: '{"project":8}' });
    await expect(moving).rejects.toMatchObject({ certainty: "not-sent", disposition: "park" });
    expect(upstream.requests).toHaveLength(4);
  });

  test("is listed and found by what tells all of them, if they tell where they are", async () => {
    const list = { path: "/activities" };
    const search = { reference: "/ref", lookup: "/search?ref={tempId}" };
    const { connector, answers } = await setup({ path, list, ...search });
    answers(
      '[{"id":1,"project":7},{"id":1,"project":8}]',
      '[{"id":1,"project":8,"ref":"urn:uuid:1"}]',
      '[{"id":1}]',
    );
    const { records } = await connector.list({ entity: "activity" });
    expect(records.map(({ id }) => id)).toEqual(["7/1", "8/1"]);
    expect((await connector.lookup({ ...key, tempId: "urn:uuid:1" })).map(({ id }) => id)).toEqual(["8/1"]);
    await expect(connector.list({ entity: "activity" })).rejects.toMatchObject({ disposition: "park" });
  });
});

async function idsOf(connector: Connector): Promise<string[]> {
  const ids: string[] = [];
  let after: string | undefined;
  do {
    const page = await connector.list({ entity: "activity", after });
    ids.push(...page.records.map(({ id }) => id));
    after = page.next;
  } while (after !== undefined);
  return ids;
}
const rows = (...ids: number[]): string => JSON.stringify(ids.map((id) => ({ doc: { id } })));

describe("a list goes on", () => {
  test("by counting what there was", async () => {
    const list = { offset: "skip", size: "limit", pageSize: 2, record: "/doc" };
    const { upstream, connector, answers } = await setup({ list });
    answers(rows(1, 2), rows(3), "[]");
    expect(await idsOf(connector)).toEqual(["1", "2", "3"]);
    const urls = upstream.requests.map(({ path }) => path);
    expect(urls).toEqual([0, 2, 3].map((skip) => `/activities?skip=${skip}&limit=2`));
  });

  test("by pages counted from 0", async () => {
    const { upstream, connector, answers } = await setup({ list: { page: "p", firstPage: 0 } });
    answers('[{"id":1}]', "[]");
    expect(await idsOf(connector)).toEqual(["1"]);
    expect(upstream.requests.map(({ path }) => path)).toEqual(["/activities?p=0", "/activities?p=1"]);
  });

  test.for(["null", '""', "false"])("by a cursor, also over an empty page, until it is %s", async (end) => {
    const list = { items: "/data", cursor: { at: "/meta/next", parameter: "after" } };
    const { upstream, connector, answers } = await setup({ list });
    answers(
      '{"data":[{"id":1}],"meta":{"next":"a&b"}}',
      '{"data":[],"meta":{"next":5}}',
      `{"data":[{"id":2}],"meta":{"next":${end}}}`,
    );
    expect(await idsOf(connector)).toEqual(["1", "2"]);
    expect(upstream.requests.map(({ path }) => path)).toEqual([
      "/activities",
      "/activities?after=a%26b",
      "/activities?after=5",
    ]);
  });

  test("by the next page's URL, at the same origin only", async () => {
    const { upstream, connector, answers } = await setup({ list: { items: "/data", next: "/next" } });
    answers('{"data":[{"id":1}],"next":"/more?p=2"}', '{"data":[{"id":2}]}');
    expect(await idsOf(connector)).toEqual(["1", "2"]);
    expect(upstream.requests.map(({ path }) => path)).toEqual(["/activities", "/more?p=2"]);
    answers('{"data":[{"id":1}],"next":"http://elsewhere.example/"}');
    await expect(connector.list({ entity: "activity" })).rejects.toMatchObject({ disposition: "park" });
  });

  test("not by a cursor that stays, nor by empty pages without end", async () => {
    const list = { items: "/data", cursor: { at: "/next", parameter: "after" } };
    const { upstream, connector } = await setup({ list });
    upstream.always({}, faults.status(200, { body: '{"data":[],"next":"a"}' }));
    const error: unknown = await connector.list({ entity: "activity" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UpstreamError);
    expect(error).toMatchObject({ disposition: "park" });
    expect(upstream.requests).toHaveLength(2);
  });
});

describe("a search", () => {
  const tempId = "urn:uuid:1";
  const search = { reference: "/ref", lookup: "/by-ref/{tempId}" };

  test("may be answered with one record, or a status that says that there is none", async () => {
    const { upstream, connector, answers } = await setup({
      ...search,
      found: { single: true, noneStatus: 404 },
    });
    answers(`{"id":3,"ref":"${tempId}"}`, '{"id":4,"ref":"another"}');
    expect((await connector.lookup({ ...key, tempId })).map(({ id }) => id)).toEqual(["3"]);
    expect(await connector.lookup({ ...key, tempId })).toEqual([]);
    upstream.script({}, faults.status(404), faults.status(410));
    expect(await connector.lookup({ ...key, tempId })).toEqual([]);
    await expect(connector.lookup({ ...key, tempId })).rejects.toMatchObject({ status: 410 });
  });

  test("takes no 404 for none unless it is told so", async () => {
    const { upstream, connector } = await setup({ ...search, found: { single: true } });
    upstream.script({}, faults.status(404));
    await expect(connector.lookup({ ...key, tempId })).rejects.toMatchObject({ disposition: "park" });
  });
});
