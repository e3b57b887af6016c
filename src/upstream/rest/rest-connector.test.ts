import { describe, expect, onTestFinished, test } from "vitest";

import { faults } from "../../../test/fixtures/scripted-faults.ts";
import type { StoreOptions } from "../../../test/fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import { UpstreamError, type Connector } from "../connector.ts";
import { openRestConnector } from "./rest-connector.ts";

type Rest = Parameters<typeof aRestUpstream>[1];

const tempId = "urn:uuid:6f1e2d3c-0000-4000-8000-00000000abcd";
const key = { entity: "activity", idempotencyKey: "0192f0c2-aaaa" };

async function setup(
  config: Rest = {},
  options: StoreOptions = {},
): Promise<{ upstream: ScriptedUpstream; connector: Connector }> {
  const upstream = await startScriptedUpstream(options);
  const connector = openRestConnector(aRestUpstream(upstream.url, config));
  onTestFinished(async () => {
    await connector.close();
    await upstream.stop();
  });
  return { upstream, connector };
}

async function failureOf(call: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

describe("create", () => {
  test("posts the text as it is, and takes ID and state from the answer", async () => {
    const { upstream, connector } = await setup();
    const body = '{ "minutes": 9007199254740993, "note": "\\u0000" }';
    const record = await connector.create({ ...key, body });
    expect(upstream.requests[0]).toMatchObject({
      method: "POST",
      path: "/activities",
      body: Buffer.from(body),
    });
    expect(upstream.requests[0]!.headers["content-type"]).toBe("application/json");
    expect(record).toEqual({ id: "1", version: undefined, body: upstream.records("activities")[0] });
    expect(record!.body).toContain('"minutes":9007199254740993');
  });

  test("writes the ID that we choose into the body of a POST", async () => {
    const create = { method: "POST", class: "client-id", enabled: true } as const;
    const { upstream, connector } = await setup({ entity: { create } }, { clientIds: true });
    const record = await connector.create({ ...key, id: "a/b", body: '{"minutes":45}' });
    expect(record!.id).toBe("a/b");
    expect(upstream.records("activities")).toEqual(['{"minutes":45,"id":"a/b"}']);
  });

  test("puts to the ID that we choose, and nothing is sent without one", async () => {
    const create = { method: "PUT", class: "upsert", enabled: true } as const;
    const { upstream, connector } = await setup({ entity: { create } }, { clientIds: true });
    const record = await connector.create({ ...key, id: "a/b", body: '{"minutes":45}' });
    expect(record!.id).toBe("a/b");
    expect(upstream.requests[0]).toMatchObject({ method: "PUT", path: "/activities/a%2Fb" });
    const failure = await failureOf(connector.create({ ...key, body: "{}" }));
    expect(failure).toMatchObject({ certainty: "not-sent", disposition: "park" });
  });

  test("a conditional one succeeds only where nothing is", async () => {
    const create = { method: "PUT", class: "conditional", enabled: true } as const;
    const { upstream, connector } = await setup({ entity: { create } }, { clientIds: true, etags: true });
    await connector.create({ ...key, id: "7", body: "{}" });
    const failure = await failureOf(connector.create({ ...key, id: "7", body: "{}" }));
    expect(failure).toMatchObject({ status: 412, disposition: "conflict", certainty: "refused" });
    expect(upstream.effects).toHaveLength(1);
  });

  test.for([
    ["a string", '{"id":"4711"}', "4711"],
    ["a number", '{"id":4711}', "4711"],
    ["a number beyond 2^53", '{"id": 90071992547409931234 }', "90071992547409931234"],
    ["an escaped string", '{"id":"\\u00e6/1"}', "æ/1"],
  ] as const)("an ID that is %s is taken exactly", async ([, body, id]) => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(201, { body }));
    expect((await connector.create({ ...key, body: "{}" }))!.id).toBe(id);
  });

  test.for([
    ["/activities/4711", "4711"],
    ["http://internal:8080/app/activities/a%2Fb/", "a/b"],
    ["/jobs/17", undefined],
    ["/activities", undefined],
    ["/activities/%E0%A4%A", undefined],
  ] as const)("a body without an ID leaves it to the Location %s", async ([location, id]) => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(201, { headers: { location } }));
    const record = await connector.create({ ...key, body: "{}" });
    expect(record?.id).toBe(id);
    expect(record?.body).toBeUndefined();
  });

  test.for([
    ["an empty answer", { status: 204 }],
    ["a body that names no record", { status: 200, body: '{"ok":true}' }],
    ["a body that is no object", { status: 200, body: '"done"' }],
  ] as const)("%s names no record", async ([, { status, ...answer }]) => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(status, answer));
    expect(await connector.create({ ...key, body: "{}" })).toBeUndefined();
  });

  test.for([
    ["a success that is not JSON", "<html>Welcome</html>"],
    ["a success cut short", '{"id":'],
  ])("%s is ambiguous", async ([, body]) => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(200, { body: body!, effect: true }));
    const failure = await failureOf(connector.create({ ...key, body: "{}" }));
    expect(failure).toMatchObject({
      certainty: "ambiguous",
      disposition: "retry",
      status: 200,
      excerpt: body,
    });
  });

  test("a success that is not UTF-8 is ambiguous", async () => {
    const { upstream, connector } = await setup();
    upstream.script({}, ({ response }) => void response.end(Buffer.from('{"id":"\xe6"}', "latin1")));
    expect(await failureOf(connector.create({ ...key, body: "{}" }))).toMatchObject({
      certainty: "ambiguous",
    });
  });
});

describe("headers", () => {
  test.for([
    [{ type: "bearer", token: "t0k" }, "authorization", "Bearer t0k"],
    [{ type: "basic", username: "bø", password: "p:w" }, "authorization", "Basic YsO4OnA6dw=="],
    [{ type: "apiKey", header: "X-Api-Key", key: "k3y" }, "x-api-key", "k3y"],
  ] as const)("%o is how we show who we are", async ([auth, name, value]) => {
    const { upstream, connector } = await setup({
      auth,
      headers: { "X-Tenant": "hlf", Accept: "text/json" },
    });
    await connector.create({ ...key, body: "{}" });
    expect(upstream.requests[0]!.headers).toMatchObject({
      [name]: value,
      "x-tenant": "hlf",
      accept: "text/json",
    });
  });

  test("actor and request ID go along, encoded so that they can't break out of the header", async () => {
    const { upstream, connector } = await setup({ actorHeader: "X-Acting-User" });
    await connector.read({ ...key, id: "1", actor: "Åse\r\nX-Admin: 1 100%\ud800", requestId: "req-1" });
    const { headers } = upstream.requests[0]!;
    expect(decodeURIComponent(headers["x-acting-user"]!)).toBe("Åse\r\nX-Admin: 1 100%\ufffd");
    expect(headers["x-acting-user"]).toMatch(/^[\x21-\x7e]+$/);
    expect(headers).not.toHaveProperty("x-admin");
    expect(headers["x-request-id"]).toBe("req-1");
  });

  test("the idempotency key goes in the configured header, only where the upstream knows it", async () => {
    const { upstream, connector } = await setup(
      { entity: { create: { method: "POST", class: "idempotency-key", header: "X-Once", enabled: true } } },
      { idempotencyHeader: "X-Once" },
    );
    const first = await connector.create({ ...key, body: '{"minutes":45}' });
    expect(await connector.create({ ...key, body: '{"minutes":45}' })).toEqual(first);
    expect(upstream.effects).toHaveLength(1);
    await connector.delete({ ...key, id: "1" });
    expect(upstream.requests[2]!.headers).not.toHaveProperty("x-once");
  });
});

describe("update and delete", () => {
  test("PATCH sends the patch, PUT the whole record, to the item", async () => {
    const { upstream, connector } = await setup();
    upstream.seed("activities", ['{"id":1,"minutes":45,"note":"x"}']);
    const call = { ...key, id: "1", patch: '{"minutes":50}', body: '{"id":1,"minutes":50}' };
    expect((await connector.update(call))!.body).toBe('{"id":1,"minutes":50,"note":"x"}');
    const put = openRestConnector(
      aRestUpstream(upstream.url, { entity: { update: { method: "PUT", class: "opaque", enabled: true } } }),
    );
    expect((await put.update(call))!.body).toBe('{"id":1,"minutes":50}');
    await put.close();
    expect(upstream.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "PATCH /activities/1",
      "PUT /activities/1",
    ]);
  });

  test("a conditional change carries the version, and another version is a conflict", async () => {
    const update = { method: "PATCH", class: "conditional", enabled: true } as const;
    const remove = { method: "DELETE", class: "conditional", header: "If-Match", enabled: true } as const;
    const { upstream, connector } = await setup(
      { entity: { update, delete: remove, version: { header: "ETag" } } },
      { etags: true },
    );
    const created = await connector.create({ ...key, body: "{}" });
    expect(created!.version).toBe('"1"');
    const call = { ...key, id: "1", patch: '{"a":1}', body: "{}" };
    const updated = await connector.update({ ...call, version: created!.version });
    expect(updated!.version).toBe('"2"');
    expect(await failureOf(connector.update({ ...call, version: '"1"' }))).toMatchObject({
      status: 412,
      disposition: "conflict",
      certainty: "refused",
    });
    await connector.delete({ ...key, id: "1", version: '"2"' });
    expect(upstream.effects.map(({ op }) => op)).toEqual(["create", "update", "delete"]);
  });

  test("an answer with a version alone tells the version; one with nothing tells nothing", async () => {
    const { upstream, connector } = await setup({ entity: { version: { header: "etag" } } });
    const call = { ...key, id: "1", patch: "{}", body: "{}" };
    upstream.script({}, faults.status(204, { headers: { etag: '"5"' } }), faults.status(204));
    expect(await connector.update(call)).toEqual({ id: "1", version: '"5"', body: undefined });
    expect(await connector.update(call)).toBeUndefined();
  });

  test("a version in a field is taken as text, whatever it is", async () => {
    const { upstream, connector } = await setup({ entity: { version: { pointer: "/meta/v" } } });
    upstream.seed("activities", [
      '{"id":1,"meta":{"v":9007199254740993}}',
      '{"id":2,"meta":{"v":"\\u0061"}}',
    ]);
    expect((await connector.read({ ...key, id: "1" }))!.version).toBe("9007199254740993");
    expect((await connector.read({ ...key, id: "2" }))!.version).toBe("a");
  });

  test("a repeated delete fails as a conflict with its status", async () => {
    const { connector } = await setup();
    const failure = await failureOf(connector.delete({ ...key, id: "9" }));
    expect(failure).toMatchObject({ status: 404, disposition: "conflict", certainty: "refused" });
  });
});

describe("a refusal", () => {
  test("carries status, wait and the start of the answer", async () => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(503, { headers: { "retry-after": "120" }, body: "x".repeat(9000) }));
    const failure = await failureOf(connector.create({ ...key, body: "{}" }));
    expect(failure).toMatchObject({ status: 503, retryAfterMs: 120_000, certainty: "ambiguous" });
    expect(failure.excerpt).toBe("x".repeat(500));
  });

  test("means what the configuration says", async () => {
    const { upstream, connector } = await setup({ statuses: { 404: "park", 503: "retry" } });
    upstream.script({ method: "POST" }, faults.status(503));
    expect(await failureOf(connector.create({ ...key, body: "{}" }))).toMatchObject({ certainty: "refused" });
    const change = connector.update({ ...key, id: "9", patch: "{}", body: "{}" });
    expect(await failureOf(change)).toMatchObject({ disposition: "park" });
    expect(await failureOf(connector.read({ ...key, id: "9" }))).toMatchObject({ disposition: "park" });
  });
});

describe("read", () => {
  test.for([404, 410])("%i says that there is none", async (status) => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(status));
    expect(await connector.read({ ...key, id: "1" })).toBeUndefined();
  });

  test("an answer without a record is no proof of absence", async () => {
    const { upstream, connector } = await setup();
    upstream.script({}, faults.status(200), faults.status(200, { body: "[]" }));
    expect(await failureOf(connector.read({ ...key, id: "1" }))).toMatchObject({ disposition: "park" });
    expect(await failureOf(connector.read({ ...key, id: "1" }))).toMatchObject({ disposition: "park" });
  });
});

describe("lookup", () => {
  const entity = { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" };
  const ours = `{"id":2,"externalRef":"${tempId}"}`;
  const strangers = '{"id":1,"externalRef":"urn:uuid:0"},{"id":3},{"id":4,"externalRef":7}';

  test("gives only what carries our reference, however the server filters", async () => {
    const { upstream, connector } = await setup({ entity }, { filters: "ignored" });
    upstream.seed("activities", ['{"id":1,"externalRef":"urn:uuid:0"}', ours, '{"id":3}']);
    const found = await connector.lookup({ ...key, tempId });
    expect(found).toEqual([{ id: "2", version: undefined, body: ours }]);
    expect(upstream.requests[0]!.path).toBe(`/activities?externalRef=${encodeURIComponent(tempId)}`);
  });

  test("knows our reference in capital letters too", async () => {
    const { upstream, connector } = await setup({ entity }, { filters: "ignored" });
    upstream.seed("activities", [ours.replace(tempId, tempId.toUpperCase())]);
    expect(await connector.lookup({ ...key, tempId })).toHaveLength(1);
  });

  test("gives none where only strangers are, and all where there are several", async () => {
    const { upstream, connector } = await setup({ entity });
    upstream.script(
      {},
      faults.status(200, { body: `[${strangers}]` }),
      faults.status(200, { body: `[${ours},${ours}]` }),
    );
    expect(await connector.lookup({ ...key, tempId })).toEqual([]);
    expect(await connector.lookup({ ...key, tempId })).toHaveLength(2);
  });

  test.for([
    ["a next page", { link: '</activities?page=2>; rel="next"' }],
    ["a larger total", { "x-total-count": "25" }],
  ] as const)("strangers and %s prove nothing", async ([, headers]) => {
    const { upstream, connector } = await setup({ entity });
    upstream.always({}, faults.status(200, { headers, body: `[${strangers}]` }));
    expect(await failureOf(connector.lookup({ ...key, tempId }))).toMatchObject({ disposition: "park" });
  });

  test("finds the list where the configuration says", async () => {
    const { upstream, connector } = await setup({ entity: { ...entity, list: { items: "/data/items" } } });
    upstream.script({}, faults.status(200, { body: `{"data":{"items": [${ours}] }}` }));
    expect(await connector.lookup({ ...key, tempId })).toHaveLength(1);
  });

  test.for([
    ["no list", "{}"],
    ["one of ours without an ID", `[{"externalRef":"${tempId}"}]`],
  ])("an answer with %s is no proof of absence", async ([, body]) => {
    const { upstream, connector } = await setup({ entity });
    upstream.script({}, faults.status(200, { body: body! }));
    expect(await failureOf(connector.lookup({ ...key, tempId }))).toMatchObject({ disposition: "park" });
  });

  test("a 404 is no proof of absence", async () => {
    const { upstream, connector } = await setup({ entity });
    upstream.script({}, faults.status(404));
    expect(await failureOf(connector.lookup({ ...key, tempId }))).toMatchObject({ disposition: "park" });
  });
});

async function walk(connector: Connector): Promise<{ ids: string[]; pages: number }> {
  const ids: string[] = [];
  let pages = 0;
  let after: string | undefined;
  do {
    const page = await connector.list({ ...key, after });
    ids.push(...page.records.map(({ id }) => id));
    after = page.next;
    pages++;
  } while (after !== undefined);
  return { ids, pages };
}

describe("list", () => {
  const list = { page: "page", size: "size" };
  const records = Array.from({ length: 7 }, (_, n) => `{"id":${n + 1},"n":9007199254740993}`);

  test.each([1, 2, 3, 6, 7, 8, 100])(
    "goes through pages of %i by number, up to the empty one",
    async (cap) => {
      const { upstream, connector } = await setup({ entity: { list } }, { pages: { cap } });
      upstream.seed("activities", records);
      const { ids, pages } = await walk(connector);
      expect(ids).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
      expect(pages).toBe(Math.ceil(7 / cap) + 1);
      expect(upstream.requests[0]?.path).toBe("/activities?page=1&size=100");
    },
  );

  test("counts on where the links of a server behind a proxy lead to the other side of it", async () => {
    const { upstream, connector } = await setup({ entity: { list } });
    const link = '<http://inside.example:8080/activities?page=2>; rel="next"';
    upstream.script({}, faults.status(200, { body: '[{"id":1}]', headers: { link } }));
    const { next } = await connector.list(key);
    expect(new URL(next!, upstream.url).searchParams.get(list.page)).toBe("2");
  });

  test("follows links where there are some, also without a page's number", async () => {
    const { upstream, connector } = await setup({ entity: { list: {} } }, { pages: { cap: 3, links: true } });
    upstream.seed("activities", records);
    expect((await walk(connector)).ids).toHaveLength(7);
    expect(upstream.requests.map(({ path }) => path)).toEqual([
      "/activities",
      "/activities?page=2",
      "/activities?page=3",
    ]);
  });

  test.each([
    ['<https://elsewhere.example/activities?page=2>; rel="next"', "another origin"],
    ["<http://[>; rel=next", "another origin"],
  ])("does not go to %s", async (link, message) => {
    const { upstream, connector } = await setup({ entity: { list: {} } });
    upstream.script({}, faults.status(200, { body: '[{"id":1}]', headers: { link } }));
    const failure = await failureOf(connector.list(key));
    expect(failure).toMatchObject({ disposition: "park" });
    expect(failure.message).toContain(message);
  });

  test.each([
    ['</a?c=x>; title="a, <b>"; rel="prev next"', "/a?c=x"],
    ["</first>; rel=first, </second>;rel=NEXT;foo", "/second"],
    ['</a>; rel="nextish"', undefined],
    ['</a>; title="rel=next"', undefined],
    ["no link", undefined],
  ])("reads the link %s as %s", async (link, next) => {
    const { upstream, connector } = await setup({ entity: { list: {} } });
    upstream.script({}, faults.status(200, { body: '[{"id":1}]', headers: { link } }));
    expect((await connector.list(key)).next).toBe(next);
  });

  test("an only page that says that there is more is an error, not a short list", async () => {
    const { upstream, connector } = await setup({ entity: { list: {} } }, { pages: { cap: 3, total: true } });
    upstream.seed("activities", records);
    expect(await failureOf(connector.list(key))).toMatchObject({ disposition: "park" });
  });

  test("takes the records from where they are, each with its ID and version as text", async () => {
    const entity = { list: { items: "/data/items" }, version: { pointer: "/v" } };
    const { upstream, connector } = await setup({ entity });
    const record = '{"id":9007199254740993, "v":7}';
    upstream.script({}, faults.status(200, { body: `{"data":{"items":[${record}]}}` }));
    expect(await connector.list(key)).toEqual({
      records: [{ id: "9007199254740993", version: "7", body: record }],
      next: undefined,
    });
  });

  test.for([
    ["no list", '{"items":[]}'],
    ["nothing", ""],
    ["a record without an ID", '[{"id":1},{"no":2}]'],
  ] as const)("an answer with %s is no list", async ([, body]) => {
    const { upstream, connector } = await setup({ entity: { list: {} } });
    upstream.script({}, faults.status(200, { body }));
    expect(await failureOf(connector.list(key))).toMatchObject({ disposition: "park" });
  });

  test("a 404 is no empty list", async () => {
    const { upstream, connector } = await setup({ entity: { list } });
    upstream.script({}, faults.status(404));
    expect(await failureOf(connector.list(key))).toMatchObject({ disposition: "park", status: 404 });
  });
});
