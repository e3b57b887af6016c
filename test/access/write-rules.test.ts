import { afterAll, beforeAll, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

const coordinator = ["role:coordinator"];
const entity = {
  scopes: ["org", "user:{/mentor}"],
  write: {
    create: ["user:{/mentor}", ...coordinator],
    update: ["user:{/mentor}", ...coordinator],
    delete: coordinator,
    fields: { "/approved": coordinator, "/meta/locked": coordinator, "/a~1b": coordinator },
  },
};

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url, { entity }) });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const kari: TestUser = { sub: "kari", roles: ["mentor"] };
const boss: TestUser = { sub: "boss", roles: ["coordinator"] };

/** How one mutation of a user ended; `data` is JSON text. */
async function verdict(user: TestUser, op: "create" | "update" | "delete", recordId: string, data?: string) {
  const outbox = newOutbox();
  const { id } = outbox.add({ op, recordId, ...(data !== undefined && { data: "DATA" }) });
  const effects = upstream.effects.length;
  const text = JSON.stringify(outbox.batch()).replace('"DATA"', () => data ?? "");
  const { body } = await gateway.as(user).upload(text as never);
  const [{ status, problem, recordId: serverId }] = body.results;
  expect(upstream.effects.length - effects).toBe(status === "applied" ? 1 : 0);
  return { id, serverId: String(serverId), verdict: problem?.type.split(":").at(-1) ?? status };
}

async function aRecord(data: object = {}): Promise<string> {
  return (await verdict(boss, "create", tempId(), JSON.stringify({ mentor: "kari", ...data }))).serverId;
}

const createRules: [who: string, user: TestUser, data: string, expected: string][] = [
  ["the mentor of the record", kari, '{"mentor":"kari"}', "applied"],
  ["a coordinator", boss, '{"mentor":"kari"}', "applied"],
  ["somebody else", { sub: "ola" }, '{"mentor":"kari"}', "not-allowed"],
  ["the mentor, for nobody", kari, "{}", "not-allowed"],
  ["one of several mentors", kari, '{"mentor":["ola","kari"]}', "applied"],
  ["somebody with the mentor's name inside a record", kari, '{"mentor":{"id":"kari"}}', "not-allowed"],
  ["somebody whose claim is a role's name", { sub: "role:coordinator" }, '{"mentor":"kari"}', "not-allowed"],
  [
    "somebody with a role that is one only in the end",
    { sub: "ola", roles: ["xcoordinator"] },
    "{}",
    "not-allowed",
  ],
  ["a mentor who stands there beside another", kari, '{"mentor":"ola","mentor":"kari"}', "not-allowed"],
];
test.each(createRules)(
  "who may create is decided by scope and role: %s",
  async (_who, user, data, expected) => {
    expect((await verdict(user, "create", tempId(), data)).verdict).toBe(expected);
  },
);

test("who may change and delete is decided by the record as it is, not as it would be", async () => {
  const id = await aRecord();
  expect((await verdict({ sub: "ola" }, "update", id, '{"mentor":"ola"}')).verdict).toBe("not-allowed");
  expect((await verdict(kari, "update", id, '{"minutes":45}')).verdict).toBe("applied");
  expect((await verdict(kari, "delete", id)).verdict).toBe("not-allowed");
  expect((await verdict(kari, "update", id, '{"mentor":"ola"}')).verdict).toBe("applied");
  expect((await verdict(kari, "update", id, '{"mentor":"kari"}')).verdict).toBe("not-allowed");
  expect((await verdict(boss, "delete", id)).verdict).toBe("applied");
});

const guarded = [
  '{"approved":true}',
  '{"approved":false}',
  '{"approved":null}',
  '{"minutes":1,"approved":{}}',
  String.raw`{"appr\u006fved":true}`,
  '{"approved":true,"approved":null}',
  '{"meta":{"locked":false}}',
  '{"meta":{"locked":null}}',
  '{"meta":{"locked":{"deep":1}}}',
  '{"meta":null}',
  '{"meta":[]}',
  '{"meta":"x"}',
  '{"meta":{"locked":true},"meta":{}}',
  '{"meta":{},"meta":{"locked":true}}',
  '{"meta":{"locked":1,"locked":2}}',
  '{"a/b":1}',
];
const free = [
  "{}",
  '{"minutes":1}',
  '{"meta":{}}',
  '{"meta":{"other":1}}',
  '{"Meta":{"x":{"locked":1}}}',
  '{"a":{"b":1}}',
];

test.each(guarded)(
  "a field that needs a role is set by nobody else, however it is written: %s",
  async (patch) => {
    const before = '{"mentor":"kari","approved":false,"meta":{"locked":true,"other":1}}';
    const id = await aRecord(JSON.parse(before));
    expect((await verdict(kari, "update", id, patch)).verdict).toBe("not-allowed");
    expect((await verdict(kari, "create", tempId(), patch.replace("{", '{"mentor":"kari",'))).verdict).toBe(
      "not-allowed",
    );
    expect((await verdict(boss, "update", id, patch)).verdict).toBe("applied");
  },
);

test.each(free)("what is beside such a field is free: %s", async (patch) => {
  const id = await aRecord({ approved: false });
  expect((await verdict(kari, "update", id, patch)).verdict).toBe("applied");
});

test("the rights are those of the token that brought the mutation, not of the one that asks later", async () => {
  const outbox = newOutbox();
  outbox.add({ op: "create", recordId: tempId(), data: { mentor: "kari", approved: true } });
  const batch = outbox.batch();
  const first = await gateway.as(kari).upload(batch);
  const later = await gateway.as({ ...kari, roles: ["coordinator"] }).upload(batch);
  expect(first.body.results).toMatchObject([{ status: "rejected" }]);
  expect(later.body.results).toEqual(first.body.results);
});
