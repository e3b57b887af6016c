import { afterAll, beforeAll, expect, test } from "vitest";

import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let kari: Api;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const entity = {
    create: { class: "idempotency-key" },
    update: { class: "upsert" },
    delete: { enabled: false },
  };
  gateway = await startGateway({ upstreams: crm(upstream.url, { entity }) });
  kari = gateway.as();
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const nested = (levels: number): unknown => {
  let value: unknown = 1;
  // the data itself is the first level
  for (let level = 1; level < levels; level++) value = [value];
  return { value };
};

/** A create with these members; undefined leaves one out. */
type Members = Record<string, unknown>;

const faults: [fault: string, members: Members, code: string][] = [
  ["entity missing", { entity: undefined }, "invalid-mutation"],
  ["entity null", { entity: null }, "invalid-mutation"],
  ["entity a number", { entity: 1 }, "invalid-mutation"],
  ["entity empty", { entity: "" }, "unknown-entity"],
  ["entity unknown", { entity: "invoice" }, "unknown-entity"],
  ["entity __proto__", { entity: "__proto__" }, "unknown-entity"],
  ["entity toString", { entity: "toString" }, "unknown-entity"],
  ["entity constructor", { entity: "constructor" }, "unknown-entity"],
  ["entity with NUL", { entity: "activity\0" }, "unknown-entity"],
  ["entity half a character", { entity: "\ud800" }, "unknown-entity"],
  ["op missing", { op: undefined }, "invalid-mutation"],
  ["op unknown", { op: "upsert" }, "invalid-mutation"],
  ["op in capitals", { op: "CREATE" }, "invalid-mutation"],
  ["op a list", { op: ["create"] }, "invalid-mutation"],
  ["op __proto__", { op: "__proto__" }, "invalid-mutation"],
  ["op that the entity does not allow", { op: "delete" }, "unknown-entity"],
  ["recordId missing", { recordId: undefined }, "invalid-mutation"],
  ["recordId empty", { op: "update", recordId: "" }, "invalid-mutation"],
  ["recordId a number", { op: "update", recordId: 7 }, "invalid-mutation"],
  ["recordId too long", { op: "update", recordId: "1".repeat(256) }, "invalid-mutation"],
  ["recordId with NUL", { op: "update", recordId: "1\0" }, "invalid-mutation"],
  ["recordId with a line break", { op: "update", recordId: "1\r\nX-Evil: 1" }, "invalid-mutation"],
  ["recordId half a character", { op: "update", recordId: "\udc00" }, "invalid-mutation"],
  ["recordId a dot", { op: "update", recordId: "." }, "invalid-mutation"],
  ["recordId two dots", { op: "update", recordId: ".." }, "invalid-mutation"],
  ["the create of a server ID", { recordId: "4711" }, "invalid-mutation"],
  ["the create of a broken temp ID", { recordId: "urn:uuid:1" }, "invalid-mutation"],
  ["the create of a padded temp ID", { recordId: ` ${tempId()}` }, "invalid-mutation"],
  ["data missing", { data: undefined }, "invalid-mutation"],
  ["data null", { data: null }, "invalid-mutation"],
  ["data a list", { data: [] }, "invalid-mutation"],
  ["data text", { data: "{}" }, "invalid-mutation"],
  ["base a list", { base: [] }, "invalid-mutation"],
  ["baseVersion a number", { baseVersion: 3 }, "invalid-mutation"],
  ["baseVersion that was never given", { baseVersion: "latest" }, "invalid-mutation"],
  ["baseVersion beyond any version", { baseVersion: "9".repeat(19) }, "invalid-mutation"],
  ["dependsOn text", { dependsOn: tempId() }, "invalid-mutation"],
  ["dependsOn with something else than ids", { dependsOn: ["1"] }, "invalid-mutation"],
  ["occurredAt a number", { occurredAt: 1 }, "invalid-mutation"],
  ["occurredAt no time", { occurredAt: "yesterday" }, "invalid-mutation"],
  ["schema an object", { schema: {} }, "invalid-mutation"],
  ["more bytes than one mutation may have", { data: { note: "x".repeat(262_144) } }, "mutation-too-large"],
  ["65 levels", { data: nested(65) }, "mutation-too-large"],
];

const good: [what: string, members: Members][] = [
  ["64 levels", { data: nested(64) }],
  [
    "null for what may be absent",
    { base: null, baseVersion: null, dependsOn: null, schema: null, occurredAt: null },
  ],
  ["an empty record", { data: {} }],
  ["names that every object has", { data: { toString: 1, hasOwnProperty: null } }],
];

test("each fault of one mutation rejects that one alone, with a verdict that stands", async () => {
  const outbox = newOutbox();
  const expected: string[] = [];
  for (const [index, [, members, code]] of faults.entries()) {
    outbox.add({ op: "create", recordId: tempId(), ...members });
    const [, rest] = good[index % good.length] ?? [];
    outbox.add({ op: "create", recordId: tempId(), ...rest });
    expected.push(code, "applied");
  }
  const batch = outbox.batch();
  const { status, body } = await kari.upload(batch);
  const verdicts = body.results.map(
    (result: Result) => result.problem?.type.split(":").at(-1) ?? result.status,
  );
  expect(named(verdicts)).toEqual(named(expected));
  expect([status, body.ackedSeq]).toEqual([200, batch.mutations.length]);
  expect(upstream.effects).toHaveLength(faults.length);

  const again = await kari.upload(batch);
  expect(again.body).toEqual(body);
  const listed = await kari.get(`/v1/mutations?clientId=${batch.clientId}`);
  expect(listed.body.results).toEqual(body.results);

  const { changes } = (await kari.get(`/v1/changes?clientId=${batch.clientId}`)).body;
  const outcomes = changes.flatMap((change: Change) => (change.type === "outcome" ? [change.result] : []));
  expect(outcomes).toEqual(body.results);
  expect(upstream.effects).toHaveLength(faults.length);
});

interface Result {
  status: string;
  problem?: { type: string };
}
interface Change {
  type: string;
  result: Result;
}

function named(verdicts: string[]): string[] {
  return verdicts.map((verdict, index) => `${index % 2 ? "good" : faults[index / 2]?.[0]}: ${verdict}`);
}

test("nesting far beyond what any recursion takes is one rejected mutation", async () => {
  const outbox = newOutbox();
  const deep = outbox.add({ op: "create", recordId: tempId(), data: "DEEP" });
  outbox.add({ op: "create", recordId: tempId(), data: { fine: true } });
  const text = JSON.stringify(outbox.batch()).replace(
    '"DEEP"',
    `${'{"a":['.repeat(100_000)}1${"]}".repeat(100_000)}`,
  );
  for (const body of [(await kari.upload(text as never)).body, (await kari.upload(text as never)).body]) {
    expect(body.results).toMatchObject([
      { id: deep.id, status: "rejected", problem: { type: "urn:tidegate:problem:mutation-too-large" } },
      { status: "applied" },
    ]);
  }
});

test("a number of a quarter of a million digits does not hold up anybody", async () => {
  const outbox = newOutbox();
  outbox.add({ op: "create", recordId: tempId(), data: { n: "HUGE" } });
  const number = `1${"0".repeat(250_000)}10`;
  const { body } = await kari.upload(JSON.stringify(outbox.batch()).replace('"HUGE"', number) as never);
  expect(body.results).toMatchObject([{ status: "applied" }]);
  expect(upstream.requests.at(-1)?.body.toString()).toBe(`{"n":${number}}`);
});

const strange = [
  "a/b",
  "../mentors/1",
  "a?b=c",
  "a#b",
  "a%2Fb",
  "%2e%2e",
  "a b",
  "æøå",
  "😀",
  ";x",
  "*",
  "-",
  "__proto__",
  "1".repeat(255),
];

test.each(strange)(
  "a record ID with a special meaning elsewhere stays one path segment: %s",
  async (recordId) => {
    const outbox = newOutbox();
    outbox.add({ op: "update", recordId, data: { minutes: 1 } });
    const before = upstream.requests.length;
    const { body } = await kari.upload(outbox.batch());
    expect(body.results).toMatchObject([
      { status: "rejected", problem: { type: "urn:tidegate:problem:not-found" } },
    ]);
    const paths = upstream.requests.slice(before).map(({ path }) => path);
    expect(paths).toEqual([`/activities/${encodeURIComponent(recordId)}`]);
  },
);

test("an identifier in capitals names the same mutation, client and record", async () => {
  const outbox = newOutbox(crypto.randomUUID().toUpperCase());
  const record = tempId();
  outbox.add({
    op: "create",
    recordId: record.toUpperCase().replace("URN:UUID", "urn:uuid"),
    data: { minutes: 1 },
  });
  const update = outbox.add({ op: "update", recordId: record, data: { minutes: 2 } });
  update.id = update.id.toUpperCase();
  const { body } = await kari.upload(outbox.batch());
  expect(body.results).toMatchObject([
    { status: "applied", tempId: record },
    { status: "applied", id: update.id.toLowerCase() },
  ]);
  const { body: one } = await kari.get(`/v1/mutations/${update.id}`);
  expect(one).toEqual(body.results[1]);
});
