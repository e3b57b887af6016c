import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}", "group:{/group}"] } }),
  });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

interface Change {
  type: string;
  id?: string;
  version?: string;
  result?: { id: string; status: string; recordId?: string; version?: string };
}

/** Everything after a cursor, page by page. */
async function follow(
  api: Api,
  { clientId, limit, cursor }: { clientId?: string; limit: number; cursor?: string },
) {
  const changes: Change[] = [];
  const sizes: number[] = [];
  for (let at = cursor; ;) {
    const query = new URLSearchParams({
      limit: String(limit),
      ...(clientId !== undefined && { clientId }),
      ...(at !== undefined && { cursor: at }),
    });
    const { status, body } = await api.get(`/v1/changes?${query.toString()}`);
    expect(status).toBe(200);
    changes.push(...body.changes);
    sizes.push(body.changes.length);
    at = body.cursor as string;
    if (!body.more) return { changes, cursor: at, sizes };
  }
}

/** A user of its own with a client and a few records, some of them changed twice and one deleted. */
async function someHistory() {
  const user: TestUser = { sub: `user-${randomUUID()}` };
  const outbox = newOutbox();
  const records = Array.from({ length: 5 }, () => tempId());
  for (const recordId of records) outbox.add({ op: "create", recordId, data: { mentor: user.sub, n: 0 } });
  for (const recordId of records.slice(0, 3)) outbox.add({ op: "update", recordId, data: { n: 1 } });
  outbox.add({ op: "update", recordId: records[0]!, data: "wrong" });
  outbox.add({ op: "delete", recordId: records[4]! });
  const batch = outbox.batch();
  const api = gateway.as(user);
  const { body } = await api.upload(batch);
  return { user, api, outbox, batch, results: body.results };
}

/** What a phone holds after these changes. */
function held(changes: Change[]): Map<string, Change> {
  const records = new Map<string, Change>();
  for (const change of changes) {
    if (change.type === "upsert") records.set(change.id ?? "", change);
    else if (change.type !== "outcome") records.delete(change.id ?? "");
  }
  return records;
}

describe("pages", () => {
  test("of every size give the same records and outcomes in the end", async () => {
    const { api, batch, results } = await someHistory();
    const { clientId } = batch;
    const whole = await follow(api, { clientId, limit: 1_000 });
    expect(held(whole.changes).size).toBe(4);
    for (let limit = 1; limit <= 8; limit++) {
      const paged = await follow(api, { clientId, limit });
      expect(held(paged.changes)).toEqual(held(whole.changes));
      // A record that has changed since stands before the outcome that tells of it.
      expect(Math.max(...paged.sizes)).toBeLessThanOrEqual(2 * limit);
      const outcomes = paged.changes.flatMap(({ result }) => result ?? []);
      expect(outcomes).toEqual(results);
    }
  });

  test("never tell an outcome before the record change that it caused", async () => {
    const { api, batch } = await someHistory();
    for (const limit of [1, 2, 3, 1_000]) {
      const { changes } = await follow(api, { clientId: batch.clientId, limit });
      const seen = new Map<string, number>();
      for (const { type, id = "", version, result } of changes) {
        if (type !== "outcome") seen.set(id, Math.max(seen.get(id) ?? 0, Number(version ?? Infinity)));
        if (result?.status !== "applied") continue;
        expect(seen.get(result.recordId ?? "")).toBeGreaterThanOrEqual(Number(result.version));
      }
    }
  });

  test("without news give the cursor of the feed's head, past what others did", async () => {
    const { api, batch } = await someHistory();
    const { clientId } = batch;
    const end = await follow(api, { clientId, limit: 1_000 });
    await someHistory();
    const empty = (await api.get(`/v1/changes?clientId=${clientId}&cursor=${end.cursor}`)).body;
    expect([empty.changes, empty.more]).toEqual([[], false]);
    expect(empty.cursor).not.toBe(end.cursor);
    const again = (await api.get(`/v1/changes?clientId=${clientId}&cursor=${empty.cursor}`)).body;
    expect(again).toEqual(empty);
  });

  test("without clientId hold neither outcomes nor temp IDs", async () => {
    const { api } = await someHistory();
    const { changes } = await follow(api, { limit: 2 });
    expect(changes.every((change) => change.type !== "outcome" && !("tempId" in change))).toBe(true);
    expect(held(changes).size).toBe(4);
  });
});

describe("an upload with a cursor", () => {
  test("brings what has changed after it, its own outcomes included", async () => {
    const { api, outbox, batch } = await someHistory();
    const { cursor } = await follow(api, { clientId: batch.clientId, limit: 1_000 });
    const { id } = outbox.add({ op: "create", recordId: tempId(), data: { mentor: "nobody" } });
    const { status, body } = await api.upload({ ...outbox.batch(), cursor });
    expect([status, body.more]).toEqual([200, false]);
    expect(body.changes).toMatchObject([{ type: "outcome", result: { id, status: "applied" } }]);
    expect(
      (await api.get(`/v1/changes?clientId=${batch.clientId}&cursor=${body.cursor}`)).body.changes,
    ).toEqual([]);
  });

  test("of another client, or a damaged one, takes the mutations and names the problem", async () => {
    const { api } = await someHistory();
    const { cursor } = await follow(api, { clientId: randomUUID(), limit: 1_000 });
    const outbox = newOutbox();
    for (const bad of [cursor, `${cursor}x`, "", "x".repeat(2_000), 7]) {
      outbox.add({ op: "create", recordId: tempId(), data: {} });
      const { status, body } = await api.upload({ ...outbox.batch(), cursor: bad });
      expect([status, body.results.length]).toEqual([200, 1]);
      expect(body.cursorProblem).toMatchObject({ type: "urn:tidegate:problem:cursor-expired", status: 410 });
      expect(body).not.toHaveProperty("changes");
      expect(body).not.toHaveProperty("cursor");
    }
  });

  test("that is null asks for no changes", async () => {
    const { api } = await someHistory();
    const { status, body } = await api.upload({ ...newOutbox().batch(), cursor: null });
    expect([status, Object.keys(body)]).toEqual([200, ["ackedSeq", "results", "idMappings", "epoch"]]);
  });
});

describe("a long poll", () => {
  test("waits for the outcome of an own mutation and returns with it", async () => {
    const { api, outbox, batch } = await someHistory();
    const { clientId } = batch;
    const { cursor } = await follow(api, { clientId, limit: 1_000 });
    const polling = api.get(`/v1/changes?clientId=${clientId}&cursor=${cursor}&wait=25`);
    const { id } = outbox.add({ op: "create", recordId: tempId(), data: {} });
    await api.upload(outbox.batch(), { wait: 0 });
    const { body } = await polling;
    expect(body.changes).toMatchObject([{ type: "outcome", result: { id, status: "applied" } }]);
  });

  test("waits for what others change in the reader's scopes, and for nothing else", async () => {
    const group = `group-${randomUUID()}`;
    const reader = gateway.as({ sub: "reader", groups: [group] });
    const polling = reader.get("/v1/changes?wait=25");
    await someHistory();
    const outbox = newOutbox();
    outbox.add({ op: "create", recordId: tempId(), data: { group } });
    await gateway.as({ sub: "author" }).upload(outbox.batch());
    expect((await polling).body.changes).toMatchObject([{ type: "upsert", data: { group } }]);
  });

  test("comes back empty-handed when its seconds are over, with the head's cursor", async () => {
    const { api } = await someHistory();
    const { cursor } = await follow(api, { limit: 1_000 });
    const { status, body } = await api.get(`/v1/changes?cursor=${cursor}&wait=1`);
    expect([status, body.changes, body.more]).toEqual([200, [], false]);
  });

  test("comes back when the process stops", async () => {
    const other = await gateway.another("api");
    const polling = other.as({ sub: "nobody" }).get("/v1/changes?wait=25");
    await expect.poll(async () => (await fetch(`${other.url}/health/live`)).status).toBe(200);
    await other.close();
    // 503 when it came too late; what may not happen is that it is cut off.
    expect([200, 503]).toContain((await polling).status);
  });
});
