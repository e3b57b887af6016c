import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { readSnapshotPage, readWholeSnapshot, snapshotPath } from "../fixtures/snapshots.ts";
import { rowsOf } from "../replay/rows.ts";

let upstream: ScriptedUpstream;
beforeAll(async () => {
  upstream = await startScriptedUpstream();
});
afterAll(async () => {
  await upstream.stop();
});

const start = async (queues?: "redis" | "postgres") =>
  await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}"] } }),
    ...(queues && { queues }),
  });

/** Whatever is marked is older than anybody may be offline; the next process that looks finds a round due. */
async function pruneAll({ database, another }: TestGateway): Promise<void> {
  await rowsOf(
    database,
    `insert into feed_mark (tenant_id, marked_at, position)
     select tenant_id, now() - interval '401 days' + position * interval '1 microsecond', position from feed_head`,
  );
  await rowsOf(
    database,
    `insert into pruning (tenant_id, kind) values ('ours', 'feed')
     on conflict (tenant_id, kind) do update set due_at = now(), finished_at = null`,
  );
  const worker = await another("worker");
  await expect
    .poll(() => rowsOf(database, "select 1 from pruning where kind = 'feed' and finished_at is not null"), {
      timeout: 20_000,
    })
    .toHaveLength(1);
  await worker.close();
}

const kari = { sub: "kari" };
const feedOf = async ({ database }: TestGateway) =>
  (
    await rowsOf<{ row: string }>(
      database,
      "select audience || ' ' || position || ' ' || kind as row from feed where audience like 's:%' order by 1",
    )
  ).map(({ row }) => row);

/** Three records of kari's: one that changed, one that went to ola, one that is deleted. */
async function writeHistory(gateway: TestGateway) {
  const outbox = newOutbox();
  const [changed, moved, deleted] = [tempId(), tempId(), tempId()];
  for (const recordId of [changed, moved, deleted])
    outbox.add({ op: "create", recordId, data: { mentor: "kari", minutes: 1 } });
  const { body: before } = await gateway.as(kari).upload(outbox.batch());
  const cursor = await readAll(gateway, outbox.clientId, undefined);
  outbox.add({ op: "update", recordId: changed, data: { minutes: 2 } });
  outbox.add({ op: "update", recordId: moved, data: { mentor: "ola" } });
  outbox.add({ op: "delete", recordId: deleted });
  const { body: after } = await gateway.as(kari).upload(outbox.batch());
  for (const { results } of [before, after])
    expect(results.map(({ status }: { status: string }) => status)).toEqual(Array(3).fill("applied"));
  return {
    outbox,
    cursor: cursor.cursor,
    ids: before.results.map((one: { recordId: string }) => one.recordId),
  };
}

interface Page {
  status: number;
  changes: { type: string; id?: string; data?: unknown; result?: { seq: number } }[];
  cursor: string;
  more: boolean;
}

async function readPage(
  gateway: TestGateway,
  clientId: string,
  cursor: string | undefined,
  limit: number,
): Promise<Page> {
  const query = new URLSearchParams({ clientId, limit: String(limit), ...(cursor && { cursor }) });
  const { status, body } = await gateway.as(kari).get(`/v1/changes?${query.toString()}`);
  return { status, ...body };
}

async function readAll(gateway: TestGateway, clientId: string, from: string | undefined, limit = 100) {
  const told: string[] = [];
  for (let cursor = from; ;) {
    const page = await readPage(gateway, clientId, cursor, limit);
    expect(page.status).toBe(200);
    told.push(...page.changes.map((one) => `${one.type} ${one.id ?? one.result?.seq}`));
    ({ cursor } = page);
    if (!page.more) return { told, cursor: page.cursor };
  }
}

describe.each(queueBackends())("on %s", (queues) => {
  test("a round prunes what is superseded, and what no cursor can ask for; live records stay", async () => {
    await using gateway = await start(queues);
    const { ids } = await writeHistory(gateway);
    expect(await feedOf(gateway)).toHaveLength(7);
    await pruneAll(gateway);
    expect(await feedOf(gateway)).toEqual(["s:user:kari 7 record", "s:user:ola 9 record"]);
    const { records } = await readWholeSnapshot(gateway.as(kari));
    expect(records.map(({ id, data }) => [id, data["minutes"]])).toEqual([[ids[0], 2]]);
  });
});

test("a cursor from before the horizon is answered 410, one at it goes on", async () => {
  await using gateway = await start();
  const { outbox, cursor } = await writeHistory(gateway);
  const { cursor: current } = await readAll(gateway, outbox.clientId, cursor);
  const page = await readSnapshotPage(gateway.as(kari), { limit: 1 });
  await pruneAll(gateway);
  expect((await readPage(gateway, outbox.clientId, cursor, 10)).status).toBe(410);
  expect(await readPage(gateway, outbox.clientId, current, 10)).toMatchObject({ status: 200, changes: [] });

  outbox.add({ op: "create", recordId: tempId(), data: { mentor: "kari" } });
  await gateway.as(kari).upload(outbox.batch());
  await pruneAll(gateway);
  const { status, body } = await gateway.as(kari).get(snapshotPath({ limit: 1, page: page.page }));
  expect([status, body.type]).toEqual([410, "urn:tidegate:problem:cursor-expired"]);
});

test("an upload with a cursor from before the horizon is taken, and says what is wrong with the cursor", async () => {
  await using gateway = await start();
  const { outbox, cursor } = await writeHistory(gateway);
  await pruneAll(gateway);
  const { status, body } = await gateway.as(kari).upload({ ...outbox.batch(), cursor });
  expect([status, body.cursorProblem.type]).toEqual([200, "urn:tidegate:problem:cursor-expired"]);
});

test("who begins without a cursor comes past the horizon, page by page, and not when it overtakes them", async () => {
  await using gateway = await start();
  const { outbox } = await writeHistory(gateway);
  for (let n = 0; n < 3; n++) outbox.add({ op: "create", recordId: tempId(), data: { mentor: "kari" } });
  await gateway.as(kari).upload(outbox.batch());
  await pruneAll(gateway);
  const { told } = await readAll(gateway, outbox.clientId, undefined, 1);
  expect(told.filter((one) => one.startsWith("upsert"))).toHaveLength(4);

  const begun = await readPage(gateway, outbox.clientId, undefined, 1);
  outbox.add({ op: "create", recordId: tempId(), data: { mentor: "kari" } });
  await gateway.as(kari).upload(outbox.batch());
  expect((await readPage(gateway, outbox.clientId, begun.cursor, 1)).status).toBe(200);
  await pruneAll(gateway);
  expect((await readPage(gateway, outbox.clientId, begun.cursor, 1)).status).toBe(410);
});

test("within the horizon who comes late gets the revoke and the delete, and each change before its outcome", async () => {
  await using gateway = await start();
  const { outbox, cursor, ids } = await writeHistory(gateway);
  await rowsOf(gateway.database, "update pruning set due_at = now()");
  const worker = await gateway.another("worker");
  await expect.poll(() => feedOf(gateway), { timeout: 20_000 }).toHaveLength(4);
  await worker.close();
  const late = await readAll(gateway, outbox.clientId, cursor, 1);
  expect(late.told).toEqual([
    `upsert ${ids[0]}`,
    "outcome 4",
    `revoke ${ids[1]}`,
    "outcome 5",
    `delete ${ids[2]}`,
    "outcome 6",
  ]);
  const { told } = await readAll(gateway, outbox.clientId, undefined, 1);
  expect(told.slice(0, 6)).toEqual([
    `upsert ${ids[0]}`,
    "outcome 1",
    `revoke ${ids[1]}`,
    "outcome 2",
    `delete ${ids[2]}`,
    "outcome 3",
  ]);
});

test("of a record that went from A to B to C the readers of A and of B each get theirs, however late they come", async () => {
  await using gateway = await start();
  const outbox = newOutbox();
  const recordId = tempId();
  outbox.add({ op: "create", recordId, data: { mentor: "kari" } });
  const { body } = await gateway.as(kari).upload(outbox.batch());
  const id = body.results[0].recordId as string;
  const cursors = new Map<string, string>();
  for (const [from, to] of [
    ["kari", "ola"],
    ["ola", "per"],
    ["per", "per"],
  ] as const) {
    cursors.set(from, (await gateway.as({ sub: from }).get("/v1/changes")).body.cursor);
    const own = newOutbox();
    own.add({ op: "update", recordId: id, data: { mentor: to, by: from } });
    const { body: moved } = await gateway.as({ sub: from }).upload(own.batch());
    expect(moved.results[0].status).toBe("applied");
  }
  await rowsOf(gateway.database, "update pruning set due_at = now()");
  const worker = await gateway.another("worker");
  await expect
    .poll(() => feedOf(gateway), { timeout: 20_000 })
    .toEqual(["s:user:kari 3 revoke", "s:user:ola 5 revoke", "s:user:per 7 record"]);
  await worker.close();
  for (const [sub, type] of [
    ["kari", "revoke"],
    ["ola", "revoke"],
    ["per", "upsert"],
  ] as const) {
    const { body: page } = await gateway.as({ sub }).get(`/v1/changes?cursor=${cursors.get(sub)}`);
    expect([sub, page.changes.map((one: { type: string; id: string }) => [one.type, one.id])]).toEqual([
      sub,
      [[type, id]],
    ]);
  }
});

test("a parked mutation is told for as long as it is, however long that takes", async () => {
  await using gateway = await start();
  const outbox = newOutbox();
  upstream.script({ method: "POST" }, ({ send }) => send({ status: 418 }));
  outbox.add({ op: "create", recordId: tempId(), data: { mentor: "kari" } });
  const { body } = await gateway.as(kari).upload(outbox.batch());
  expect(body.results[0].status).toBe("parked");
  await pruneAll(gateway);
  expect((await readAll(gateway, outbox.clientId, undefined)).told).toEqual(["outcome 1"]);
});
