import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, expect, test } from "vitest";

import type { Answer, Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let kari: Api;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url) });
  kari = gateway.as();
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const depth = 64;
let lastId = 4711;
const payloads: [what: string, data: string][] = [
  ["integers beyond 2^53", '{"n":9007199254740993,"m":-123456789012345678901234567890}'],
  ["numbers beyond every double", '{"a":1e400,"b":-1E+400,"c":1e-400}'],
  ["the spelling of numbers", '{"a":1.0,"b":1.50,"c":-0,"d":-0.0,"e":1E5,"f":0e0}'],
  ["NUL", String.raw`{"a":"\u0000","\u0000":1}`],
  ["lone surrogates", String.raw`{"a":"\ud800","b":"\udfff\ud83d","\udead":"\uD83D\uDE00"}`],
  ["escapes as they were written", String.raw`{"a":"\/\b\f\n\r\t\"\\\u00e5\u00E5","\u0061":1}`],
  ["unicode as it was written", '{"å":"æøå","漢":"字","😀":"👩‍👩‍👧‍👦","sep":"\u2028\u2029"}'],
  ["empty strings, keys, lists and records", '{"a":"","":"","b":[],"c":{},"d":[{}]}'],
  ["nulls, true and false", '{"a":null,"b":[null,true,false],"c":{"d":null}}'],
  ["the order of keys, also of those that look like numbers", '{"z":1,"10":2,"2":3,"a":4,"-1":5,"01":6}'],
  ["repeated keys", '{"a":1,"a":2,"b":{"c":1,"c":{"d":3}},"a":3}'],
  [
    "names that every object has",
    '{"__proto__":{"admin":true},"constructor":1,"toString":"x","hasOwnProperty":null}',
  ],
  ["nesting up to the limit", `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`],
  ["white space", '{ "a" :\t[ 1 ,\r\n2 ] ,\n"b":{ } }'],
  [
    "text that looks like JSON or a temp ID",
    '{"a":"{\\"b\\":1}","b":"urn:uuid:1","c":" urn:uuid:00000000-0000-0000-0000-000000000000"}',
  ],
];

function upload(mutation: Record<string, string | number | null>, data: string): Promise<Answer> {
  const envelope = JSON.stringify({ clientId: randomUUID(), previousSeq: 0 }).slice(0, -1);
  const members = JSON.stringify({ seq: 1, id: randomUUID(), entity: "activity", ...mutation }).slice(0, -1);
  return kari.upload(`${envelope},"mutations":[${members},"data":${data}}]}` as never);
}

test.each(payloads)("%s reach the upstream as the phone sent them", async (_what, data) => {
  const { body } = await upload({ op: "create", recordId: tempId() }, data);
  expect(body.results).toMatchObject([{ status: "applied" }]);
  expect(upstream.requests.at(-1)?.body.toString()).toBe(data);
});

test.each(payloads)("%s reach it in an update too", async (_what, data) => {
  const { body: created } = await upload({ op: "create", recordId: tempId() }, "{}");
  const { body } = await upload({ op: "update", recordId: created.results[0].recordId }, data);
  expect(body.results).toMatchObject([{ status: "applied" }]);
  expect(upstream.requests.at(-1)?.body.toString()).toBe(data);
});

test.each(payloads)("%s reach the phone as the upstream answered them", async (_what, data) => {
  const id = String(++lastId);
  const record = data.replace("{", `{"id":${id},`);
  upstream.script({ method: "POST" }, ({ send }) => send({ status: 201, body: record }));
  upstream.always({ method: "GET", path: `/activities/${id}` }, ({ send }) =>
    send({ status: 200, body: record }),
  );
  const cursor = (await kari.get("/v1/changes?limit=1000")).body.cursor;
  const { body } = await upload({ op: "create", recordId: tempId() }, "{}");
  expect(body.results).toMatchObject([{ status: "applied", recordId: id }]);
  const { text } = await kari.get(`/v1/changes?cursor=${cursor}`);
  expect(text.includes(`"data":${record}`)).toBe(true);

  const stale = await upload({ op: "update", recordId: id, baseVersion: "999999" }, "{}");
  expect(stale.body.results).toMatchObject([{ status: "conflict" }]);
  expect(stale.text.includes(`"data":${record}`)).toBe(true);
});

test("a temp ID in declared fields becomes a server ID, and every other byte stays", async () => {
  const mentor = tempId();
  const [secondSpelling, elsewhere] = [
    mentor.toUpperCase().replace("URN:UUID:", "urn:uuid:"),
    "urn:uuid:zzz",
  ];
  const { body: created } = await upload(
    { op: "create", entity: "mentor", recordId: mentor },
    '{"name":"Kari"}',
  );
  const serverId = created.results[0].recordId;
  const data = (id: string): string =>
    `{ "n": 9007199254740993, "mentor" : "${id}", "note":"${mentor}", "x":"${elsewhere}", "${mentor}":"\\ud800" }`;
  await upload({ op: "create", recordId: tempId() }, data(mentor));
  expect(upstream.requests.at(-1)?.body.toString()).toBe(data(serverId));
  await upload(
    { op: "create", recordId: tempId() },
    data(secondSpelling).replace(`"note":"${secondSpelling}"`, '"note":""'),
  );
  expect(upstream.requests.at(-1)?.body.toString()).toContain(`"mentor" : "${serverId}"`);
});
