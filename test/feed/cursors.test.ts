import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, expect, test } from "vitest";

import { signCursor, type CursorClaims } from "../../src/change-feed/cursor.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

const [oldSecret, newSecret] = [
  "the cursor secret that goes, long enough",
  "the cursor secret that comes, long enough",
];

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let epoch: string;
const clientId = randomUUID();
const kari: TestUser = { sub: "kari", groups: ["west", "east"] };

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url),
    otherUpstreams: crm(upstream.url),
    cursorSecrets: [newSecret, oldSecret],
  });
  const outbox = newOutbox(clientId);
  outbox.add({ op: "create", recordId: tempId(), data: {} });
  epoch = (await gateway.as(kari).upload(outbox.batch())).body.epoch;
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const claims = (rest: Partial<CursorClaims> = {}): CursorClaims => ({
  tenantId: "ours",
  clientId,
  scopes: ["group:east", "group:west", "org", "user:kari"],
  epoch,
  ...rest,
});

async function read(
  cursor: string,
  { user = kari, client = clientId }: { user?: TestUser; client?: string } = {},
) {
  const query = new URLSearchParams({ cursor, ...(client && { clientId: client }) });
  const { status, body } = await gateway.as(user).get(`/v1/changes?${query.toString()}`);
  return status === 200 ? 200 : body.type;
}

const expired = "urn:tidegate:problem:cursor-expired";
const own = async (): Promise<string> =>
  (await gateway.as(kari).get(`/v1/changes?clientId=${clientId}`)).body.cursor;

test("the one just given out is honoured, whatever the order and number of the token's claims", async () => {
  const cursor = await own();
  expect(await read(cursor)).toBe(200);
  expect(await read(cursor, { user: { ...kari, groups: ["east", "west", "east"] } })).toBe(200);
  expect(await read(cursor, { client: clientId.toUpperCase() })).toBe(200);
});

test("one of another audience is not", async () => {
  const cursor = await own();
  expect(await read(cursor, { user: { ...kari, groups: ["east"] } })).toBe(expired);
  expect(await read(cursor, { user: { ...kari, groups: ["east", "west", "north"] } })).toBe(expired);
  expect(await read(cursor, { client: randomUUID() })).toBe(expired);
  expect(await read(cursor, { client: "" })).toBe(expired);
  expect(await read(cursor, { user: { ...kari, iss: "other" } })).toBe(expired);
  expect(await read(cursor, { user: { sub: "ola", groups: kari.groups! }, client: "" })).toBe(expired);
});

test("those of both secrets are honoured, so that they can be rotated, and no others", async () => {
  expect(await read(signCursor([newSecret], claims(), 1))).toBe(200);
  expect(await read(signCursor([oldSecret], claims(), 1))).toBe(200);
  expect(await own()).toBe(signCursor([newSecret], claims(), await headOf(await own())));
  for (const secrets of [["a secret of three rotations ago, long enough"], [""], []]) {
    expect(await read(signCursor(secrets, claims(), 1))).toBe(expired);
  }
});

async function headOf(cursor: string): Promise<number> {
  return JSON.parse(Buffer.from(cursor.split(".")[0]!, "base64url").toString())[1];
}

test("one from the future or of another epoch is not honoured", async () => {
  const head = await headOf(await own());
  expect(await read(signCursor([newSecret], claims(), head))).toBe(200);
  expect(await read(signCursor([newSecret], claims(), head + 1))).toBe(expired);
  expect(await read(signCursor([newSecret], claims({ epoch: randomUUID() }), 1))).toBe(expired);
});

test("a damaged one is answered with 410, whatever the damage", async () => {
  const cursor = await own();
  const [body = "", signature = ""] = cursor.split(".");
  const flipped = Array.from({ length: cursor.length }, (_, at) => {
    const other = cursor[at] === "A" ? "B" : "A";
    return cursor.slice(0, at) + other + cursor.slice(at + 1);
  });
  const damaged = [
    "",
    ".",
    "0",
    "null",
    body,
    `${body}.`,
    `.${signature}`,
    `${cursor}.`,
    `${cursor}.x`,
    ` ${cursor}`,
    `${cursor}\n`,
    cursor.slice(0, -1),
    cursor.toLowerCase(),
    `${body}.${"é".repeat(signature.length)}`,
    `${body}.${"\ud83d\ude00".repeat(signature.length / 2)}`,
    "\0",
    "x".repeat(3_000),
    ...flipped,
  ];
  for (const text of damaged) expect([text, await read(text)]).toEqual([text, expired]);
});
