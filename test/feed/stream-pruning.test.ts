import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createReadNext } from "../../src/change-feed/follow.ts";
import { placeAfter, type Place } from "../../src/change-feed/pull.ts";
import { pruneFeed } from "../../src/change-feed/prune.ts";
import type { Change } from "../../src/change-feed/read.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { crm } from "../fixtures/crm.ts";
import { openStream, type StreamEvent } from "../fixtures/event-stream.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { rowsOf } from "../replay/rows.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let db: ReturnType<typeof openDatabase>;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}"] } }),
  });
  db = openDatabase(gateway.database.serviceUrl, { poolMax: 4, onError: () => undefined });
});
afterAll(async () => {
  await db.destroy();
  await gateway.close();
  await upstream.stop();
});

const slow = { timeout: 60_000 };
const charactersMax = 70 * 1024;

async function prune(): Promise<number> {
  const { pruned } = await inTenant(db, "ours", (trx) =>
    pruneFeed(trx, "ours", { after: undefined, limit: 10_000 }),
  );
  return pruned.record;
}

/** Three records that were made, and then changed; of the first changes no row is left. The second has gone to another. */
async function writeHistory(sub: string, characters = 0) {
  const outbox = newOutbox();
  const records = [tempId(), tempId(), tempId()];
  const text = "x".repeat(characters);
  for (const recordId of records) outbox.add({ op: "create", recordId, data: { mentor: sub, text } });
  const { body } = await gateway.as({ sub }).upload(outbox.batch());
  for (const [n, recordId] of records.entries()) {
    outbox.add({ op: "update", recordId, data: n === 1 ? { mentor: `${sub}'s friend` } : { n } });
  }
  const { body: after } = await gateway.as({ sub }).upload(outbox.batch());
  for (const { status } of [...body.results, ...after.results]) expect(status).toBe("applied");
  expect(await prune()).toBeGreaterThanOrEqual(3);
  const ids = body.results.map((one: { recordId: string }) => one.recordId) as string[];
  return { clientId: outbox.clientId, ids };
}

/** What is told of the history. A record comes again with each outcome from where one goes on behind it. */
function expectEachBeforeItsOutcome(told: Change[], ids: string[]): void {
  const known = new Set<string>();
  const seqs: number[] = [];
  for (const one of told) {
    if (one.type !== "outcome") {
      expect(one.type).toBe(one.id === ids[1] ? "revoke" : "upsert");
      known.add(one.id);
      continue;
    }
    const { seq, recordId } = one.result;
    expect([seq, known.has(recordId ?? "")]).toEqual([seq, true]);
    if (!seqs.includes(seq)) seqs.push(seq);
  }
  expect(seqs).toEqual([1, 2, 3, 4, 5, 6]);
}

const changesOf = (events: StreamEvent[]): Change[] => events.map(({ data }) => data as Change);

function isDone(events: StreamEvent[]): boolean {
  return events.some(({ data }) => data.type === "outcome" && data.result.seq === 6);
}

describe("the record comes before its outcome, though the change's row was pruned", () => {
  test.each([
    ["to one who reads alone with a limit of 1", 1, true],
    ["to one who reads together with a limit of 1", 1, false],
    ["to one who reads alone with a limit of 2", 2, true],
    ["to one who reads together with a limit of 2", 2, false],
    ["to one who reads together with a limit of 50", 50, false],
  ])("%s", slow, async (_name, limit, isBehind) => {
    const sub = `${isBehind ? "alone" : "together"}-${limit}`;
    const { clientId, ids } = await writeHistory(sub);
    const identity = {
      tenantId: "ours",
      userId: sub,
      scopes: [`user:${sub}`],
      roles: [],
      expiresAtMs: Infinity,
    };
    const readNext = createReadNext({ db, codec: plainCodec });
    const follower = { identity, clientId };
    const told: Change[] = [];
    let place: Place = { position: 0, begunAt: undefined, untoldTo: 0, epoch: undefined };
    for (let more = true; more;) {
      const page = await readNext({ follower, place, limit, isBehind });
      expect(page.changes.length).toBeLessThanOrEqual(limit === 50 ? 9 : 2 * limit);
      expect(page.more && page.position <= place.position).toBe(false);
      told.push(...page.changes.map(({ change }) => change));
      place = placeAfter(place, page);
      ({ more } = page);
    }
    expectEachBeforeItsOutcome(told, ids);
  });

  test.each([
    ["small", 0],
    ["so large that each fills a write", charactersMax],
  ])("on an event stream, wherever it is resumed; the records are %s", slow, async (_, characters) => {
    const sub = `stream-${characters}`;
    const { clientId, ids } = await writeHistory(sub, characters);
    await using stream = await openStream(gateway, { sub }, { clientId });
    await stream.until(isDone);
    expectEachBeforeItsOutcome(changesOf(stream.events), ids);
    for (const [index, { id }] of stream.events.slice(0, -1).entries()) {
      await using resumed = await openStream(gateway, { sub }, { clientId, lastEventId: id });
      await resumed.until(isDone);
      const until = stream.events.slice(0, index + 1);
      expectEachBeforeItsOutcome([...changesOf(until), ...changesOf(resumed.events)], ids);
    }
  });
});

async function moveHorizon(by: number): Promise<void> {
  await rowsOf(
    gateway.database,
    `insert into feed_horizon (tenant_id, position) select tenant_id, position + ${by} from feed_head
     on conflict (tenant_id) do update set position = excluded.position`,
  );
  await prune();
}

async function write(sub: string, count: number): Promise<void> {
  const outbox = newOutbox();
  for (let n = 0; n < count; n++) outbox.add({ op: "create", recordId: tempId(), data: { mentor: sub, n } });
  await gateway.as({ sub }).upload(outbox.batch());
}

describe("the horizon", () => {
  test("ends a stream whose place it has passed; an earlier cursor opens none", slow, async () => {
    const sub = "late";
    await using stream = await openStream(gateway, { sub });
    await write(sub, 2);
    await stream.until(({ length }) => length === 2);
    const cursor = stream.events[0]!.id;
    await moveHorizon(1);
    await write(sub, 2);
    await stream.until((events) => events.at(-1)?.event === "end");
    expect(stream.events.map(({ event }) => event)).toEqual(["change", "change", "end"]);
    expect(stream.events[2]?.data).toMatchObject({
      reason: "cursor-expired",
      problem: { status: 410, type: "urn:tidegate:problem:cursor-expired" },
    });
    await stream.closed;
    await using refused = await openStream(gateway, { sub }, { lastEventId: cursor });
    expect(refused.status).toBe(410);
  });

  test(
    "passes over a stream that began behind it without a cursor, also when it is resumed",
    slow,
    async () => {
      const sub = "new";
      await write(sub, 3);
      await moveHorizon(0);
      const first = await openStream(gateway, { sub });
      await first.until(({ length }) => length === 3);
      first.break();
      await using second = await openStream(gateway, { sub }, { lastEventId: first.events[0]!.id });
      await second.until(({ length }) => length === 2);
      await write(sub, 1);
      await second.until(({ length }) => length === 3);
      expect([...first.events.slice(0, 1), ...second.events].map(({ data }) => data.data.n)).toEqual([
        0, 1, 2, 0,
      ]);
      await moveHorizon(0);
      await using third = await openStream(gateway, { sub }, { lastEventId: first.events[0]!.id });
      expect(third.status).toBe(410);
    },
  );
});
