import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { signCursor } from "../../src/change-feed/cursor.ts";
import { signToken, type TokenClaims } from "../../src/change-feed/token.ts";
import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, tokenFor, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { newOutbox, type Outbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { readSnapshotPage, readWholeSnapshot, snapshotPath } from "../fixtures/snapshots.ts";

const secret = "the tests' cursor secret, long enough";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["group:{/groups}"] } }),
    otherUpstreams: crm(upstream.url, { entity: { scopes: ["group:{/groups}"] } }),
    cursorSecrets: [secret],
  });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

/** Groups that no other test has, and somebody who is in all of them. */
function someGroups(count: number) {
  const run = randomUUID();
  const groups = Array.from({ length: count }, (_, n) => `${n}-${run}`);
  const user: TestUser = { sub: `kari-${run}`, groups };
  return { groups, user, api: gateway.as(user), outbox: newOutbox() };
}

/** Sends what is queued; the records' IDs. */
async function send(api: Api, outbox: Outbox): Promise<string[]> {
  const { status, body } = await api.upload(outbox.batch());
  expect(status).toBe(200);
  return (body.results as { status: string; recordId: string }[]).map((result) => {
    expect(result.status).toBe("applied");
    return result.recordId;
  });
}

async function create(api: Api, outbox: Outbox, groups: string[][]): Promise<string[]> {
  for (const inGroups of groups) outbox.add({ op: "create", recordId: tempId(), data: { groups: inGroups } });
  return await send(api, outbox);
}

async function move(api: Api, outbox: Outbox, recordId: string, groups: string[]): Promise<void> {
  outbox.add({ op: "update", recordId, data: { groups } });
  await send(api, outbox);
}

const changesAfter = async (api: Api, cursor: string) =>
  (await api.get(`/v1/changes?cursor=${cursor}`)).body as {
    changes: { type: string; id: string; data?: { groups: string[] } }[];
    more: boolean;
  };

describe("a snapshot", () => {
  test("has every record in the scopes once, as it stands, in pages of any size, and the cursor behind them", async () => {
    const { groups, api, outbox } = someGroups(3);
    const [a = "", b = "", c = ""] = groups;
    const [first = "", , third = "", gone = ""] = await create(api, outbox, [
      [a, b, c],
      [b],
      [c, a],
      [b],
      [],
    ]);
    await move(api, outbox, first, [b, c]);
    await move(api, outbox, third, [a]);
    outbox.add({ op: "delete", recordId: gone });
    await send(api, outbox);

    const whole = await readWholeSnapshot(api);
    expect(whole.pages).toBe(1);
    const seen = whole.records.map(({ id, version, data }) => [id, version, data["groups"]]);
    expect(seen).toHaveLength(3);
    expect(seen).toContainEqual([first, "2", [b, c]]);
    expect(seen).toContainEqual([third, "2", [a]]);
    for (let limit = 1; limit <= 12; limit++) {
      const paged = await readWholeSnapshot(api, { limit });
      expect(paged.records).toEqual(whole.records);
      expect(await changesAfter(api, paged.cursor)).toMatchObject({ changes: [], more: false });
    }
  });

  test("of somebody who sees nothing is empty, and has a cursor all the same", async () => {
    const { api } = someGroups(3);
    const { records, cursor, pages } = await readWholeSnapshot(api, { limit: 1 });
    expect([records, pages]).toEqual([[], 1]);
    expect((await changesAfter(api, cursor)).changes).toEqual([]);
  });

  test("has nothing of other scopes or tenants", async () => {
    const { groups, api, outbox } = someGroups(2);
    const [a = "", b = ""] = groups;
    const ids = await create(api, outbox, [[a], [b], [a, b]]);
    const other = await readWholeSnapshot(gateway.as({ sub: "ola", groups: [b] }), { limit: 2 });
    expect(other.records.map(({ id }) => id)).toEqual(ids.slice(1));
    const stranger = await readWholeSnapshot(gateway.as({ sub: "ola", iss: "other", groups }));
    expect(stranger.records).toEqual([]);
  });

  test("of two hundred scopes has a record that is in many of them once", async () => {
    const { groups, api, outbox } = someGroups(198);
    const every = (step: number): string[] => groups.filter((_, n) => n % step === 0);
    const ids = await create(api, outbox, [every(20), every(1), every(90), groups.slice(-1), every(7)]);
    const whole = await readWholeSnapshot(api);
    expect(whole.records.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    const paged = await readWholeSnapshot(api, { limit: 3 });
    expect(paged.records).toEqual(whole.records);
  });
});

describe("a record that moves while a snapshot is read", () => {
  test("into a scope that was read, or is still to come, comes by the cursor", async () => {
    const { groups, api, outbox } = someGroups(3);
    const [a = "", b = "", c = ""] = groups.toSorted();
    const [inA = "", inB = "", inC = ""] = await create(api, outbox, [[a], [b], [c]]);
    const first = await readSnapshotPage(api, { limit: 1 });
    expect(first.records.map(({ id }) => id)).toEqual([inA]);
    await move(api, outbox, inB, [a]);
    await move(api, outbox, inA, [c]);
    const rest = await readWholeSnapshot(api, { limit: 1, page: first.page });
    expect(rest.records.map(({ id }) => id)).toEqual([inC]);
    expect((await changesAfter(api, rest.cursor)).changes).toMatchObject([
      { type: "upsert", id: inB, data: { groups: [a] } },
      { type: "upsert", id: inA, data: { groups: [c] } },
    ]);
  });

  test("out of the scopes, or is deleted, is taken back by the cursor, shown before or not", async () => {
    const { groups, user, api, outbox } = someGroups(2);
    const [a = "", b = ""] = groups.toSorted();
    const ids = await create(api, outbox, [[a], [a], [a], [a]]);
    const reader = gateway.as({ ...user, groups: [a] });
    const first = await readSnapshotPage(reader, { limit: 2 });
    expect(first.records.map(({ id }) => id)).toEqual(ids.slice(0, 2));
    for (const index of [0, 2]) await move(api, outbox, ids[index]!, [b]);
    for (const index of [1, 3]) outbox.add({ op: "delete", recordId: ids[index]! });
    await send(api, outbox);
    const rest = await readWholeSnapshot(reader, { limit: 2, page: first.page });
    expect(rest.records).toEqual([]);
    const { changes } = await changesAfter(reader, rest.cursor);
    expect(changes.map(({ type, id }) => [type, id])).toEqual([
      ["revoke", ids[0]],
      ["revoke", ids[2]],
      ["delete", ids[1]],
      ["delete", ids[3]],
    ]);
  });

  test("into the scopes of a reader who did not see it comes by the cursor alone", async () => {
    const { groups, user, api, outbox } = someGroups(2);
    const [a = "", b = ""] = groups.toSorted();
    const [, other = ""] = await create(api, outbox, [[b], [a], [b]]);
    const reader = gateway.as({ ...user, groups: [b] });
    const first = await readSnapshotPage(reader, { limit: 1 });
    await move(api, outbox, other, [b]);
    const rest = await readWholeSnapshot(reader, { limit: 1, page: first.page });
    expect(rest.records.some(({ id }) => id === other)).toBe(false);
    expect((await changesAfter(reader, rest.cursor)).changes).toMatchObject([{ type: "upsert", id: other }]);
  });
});

describe("a page", () => {
  test("of rows that records have left is empty, with more to come", async () => {
    const { groups, api, outbox } = someGroups(1);
    const ids = await create(
      api,
      outbox,
      Array.from({ length: 4 }, () => groups),
    );
    for (const id of ids) await move(api, outbox, id, groups);
    const first = await readSnapshotPage(api, { limit: 3 });
    expect([first.records, first.more]).toEqual([[], true]);
    const { records } = await readWholeSnapshot(api, { limit: 3, page: first.page });
    expect(records.map(({ id, version }) => [id, version])).toEqual(ids.map((id) => [id, "2"]));
  });

  test("can be asked for again, and says what is right then", async () => {
    const { groups, api, outbox } = someGroups(1);
    const ids = await create(
      api,
      outbox,
      Array.from({ length: 3 }, () => groups),
    );
    const { page } = await readSnapshotPage(api, { limit: 1 });
    const once = await readSnapshotPage(api, { limit: 1, page });
    expect(await readSnapshotPage(api, { limit: 1, page })).toEqual(once);
    await move(api, outbox, ids[1]!, groups);
    const again = await readSnapshotPage(api, { limit: 2, page });
    expect(again.records.map(({ id }) => id)).toEqual([ids[2]]);
    expect((await changesAfter(api, again.cursor!)).changes).toMatchObject([{ type: "upsert", id: ids[1] }]);
  });

  test("is compressed when asked", async () => {
    const { groups, user, api, outbox } = someGroups(1);
    outbox.add({ op: "create", recordId: tempId(), data: { groups, note: "basement ".repeat(1_000) } });
    await send(api, outbox);
    for (const encoding of ["gzip", "br"]) {
      const { headers, body } = await api.get(snapshotPath(), { "accept-encoding": encoding });
      expect(headers.get("content-encoding")).toBe(encoding);
      expect(body.records).toHaveLength(1);
    }
    const plain = await fetch(gateway.url + snapshotPath(), {
      headers: { authorization: `Bearer ${tokenFor(user)}`, "accept-encoding": "identity" },
    });
    expect(plain.headers.get("content-encoding")).toBe(null);
    expect(await plain.text()).toContain("basement");
  });

  test("passes on data as it was sent: long integers, escapes, key order", async () => {
    const { groups, api, outbox } = someGroups(1);
    const data = `{"z":9007199254740993,"a":"\\u0041","groups":["${groups[0]}"]}`;
    outbox.add({ op: "create", recordId: tempId(), data: { placeholder: true } });
    const batch = JSON.stringify(outbox.batch()).replace('{"placeholder":true}', data);
    expect((await api.post("/v1/batches", batch, { headers: { prefer: "wait=20" } })).status).toBe(200);
    const { text } = await api.get(snapshotPath());
    expect(text).toContain('"z":9007199254740993,"a":"\\u0041"');
  });

  test.each(["limit=0", "limit=1001", "limit=x", "clientId=x", "cursor=x", "after=1"])(
    "with %s is not asked for",
    async (query) => {
      const { status, body } = await gateway.as().get(`/v1/snapshot?${query}`);
      expect([status, body.type]).toEqual([400, "urn:tidegate:problem:invalid-request"]);
    },
  );
});

describe("temp IDs", () => {
  test("are the own client's; another user's client is refused, and without a client there are none", async () => {
    const { groups, user, api, outbox } = someGroups(1);
    const { clientId } = outbox;
    const name = tempId();
    outbox.add({ op: "create", recordId: name, data: { groups } });
    await send(api, outbox);
    const own = await readWholeSnapshot(api, { clientId: clientId.toUpperCase() });
    expect(own.records).toMatchObject([{ tempId: name }]);
    for (const other of [undefined, randomUUID()]) {
      const { records } = await readWholeSnapshot(api, { clientId: other });
      expect(records).toHaveLength(1);
      expect(records[0]).not.toHaveProperty("tempId");
    }
    const ola = gateway.as({ ...user, sub: "ola" });
    const { status, body } = await ola.get(snapshotPath({ clientId }));
    expect([status, body.type]).toEqual([403, "urn:tidegate:problem:client-owned"]);
  });
});

const expired = "urn:tidegate:problem:cursor-expired";
const answerOf = async (api: Api, path: string) => {
  const { status, body } = await api.get(path);
  return status === 200 ? 200 : [status, body.type];
};

/** Someone in two groups with two records in them, after the first page. */
async function begun() {
  const { groups, user, api, outbox } = someGroups(2);
  await create(api, outbox, [groups, groups]);
  const { clientId } = outbox;
  const { page = "" } = await readSnapshotPage(api, { clientId, limit: 1 });
  const { epoch } = (await api.get("/v1/capabilities")).body as { epoch: string };
  const scopes = ["org", `user:${user.sub}`, ...groups.map((group) => `group:${group}`)].toSorted();
  const claims: TokenClaims = { tenantId: "ours", clientId, scopes, epoch };
  return { groups, user, api, clientId, page, claims };
}

describe("a page token", () => {
  test("is honoured for the same tenant, client, scopes and epoch, and for nobody else", async () => {
    const { groups, user, api, clientId, page, claims } = await begun();
    const path = snapshotPath({ clientId, page });
    expect(await answerOf(api, path)).toBe(200);
    const reordered = { ...user, groups: [...groups, ...groups].toReversed() };
    expect(await answerOf(gateway.as(reordered), path)).toBe(200);
    for (const other of [
      { ...user, groups: groups.slice(1) },
      { ...user, iss: "other" },
    ]) {
      expect(await answerOf(gateway.as(other), path)).toEqual([410, expired]);
    }
    for (const client of [undefined, randomUUID()]) {
      expect(await answerOf(api, snapshotPath({ clientId: client, page }))).toEqual([410, expired]);
    }
    const place = [1, 0, 0];
    const signed = (secrets: string[], rest: Partial<TokenClaims> = {}) =>
      answerOf(
        api,
        snapshotPath({ clientId, page: signToken(secrets, "page", { ...claims, ...rest }, place) }),
      );
    expect(await signed([secret])).toBe(200);
    expect(await signed(["another secret, just as long as it was"])).toEqual([410, expired]);
    expect(await signed([secret], { epoch: randomUUID() })).toEqual([410, expired]);
  });

  test("is no cursor, and a cursor is no page", async () => {
    const { api, clientId, page, claims } = await begun();
    expect(await answerOf(api, `/v1/changes?clientId=${clientId}&cursor=${page}`)).toEqual([410, expired]);
    const cursor = signCursor([secret], claims, 1);
    expect(await answerOf(api, `/v1/changes?clientId=${clientId}&cursor=${cursor}`)).toBe(200);
    expect(await answerOf(api, snapshotPath({ clientId, page: cursor }))).toEqual([410, expired]);
  });

  test("from the future, or damaged, is not honoured", async () => {
    const { api, clientId, page, claims } = await begun();
    const head = 1_000_000_000;
    const ahead = signToken([secret], "page", claims, [head, 0, 0]);
    for (const bad of [ahead, "", ".", "0", `${page}x`, page.slice(1), "x".repeat(3_000), "\0"]) {
      expect([bad, await answerOf(api, snapshotPath({ clientId, page: bad }))]).toEqual([
        bad,
        [410, expired],
      ]);
    }
  });
});
