import { randomUUID } from "node:crypto";

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { openStream, type EventStream, type StreamEvent } from "../fixtures/event-stream.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox, type Outbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}", "group:{/group}"] } }),
    follow: { lookEveryMs: 60_000, commentEveryMs: 300, stalledMs: 1_500 },
  });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const slow = { timeout: 60_000 };

interface Writer {
  sub: string;
  outbox: Outbox;
  /** Creates records of this user, each with its `n`. */
  write: (count: number, data?: object) => Promise<void>;
}

function newWriter(sub: string = `user-${randomUUID()}`): Writer {
  const outbox = newOutbox();
  let n = 0;
  return {
    sub,
    outbox,
    async write(count, data = {}) {
      for (let i = 0; i < count; i++) {
        outbox.add({ op: "create", recordId: tempId(), data: { mentor: sub, n: n++, ...data } });
      }
      const { body } = await gateway.as({ sub }).upload(outbox.batch());
      for (const { status } of body.results) expect(status).toBe("applied");
    },
  };
}

/** The `n` of the records that came, in their order. */
function numbers(events: StreamEvent[]): number[] {
  return events.flatMap(({ event, data }) =>
    event === "change" && data.type === "upsert" ? [data.data.n] : [],
  );
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

function end(stream: EventStream): StreamEvent | undefined {
  return stream.events.find(({ event }) => event === "end");
}

describe("a stream", () => {
  test(
    "tells what is there and then what happens, as `/v1/changes` does, each with the cursor after it",
    slow,
    async () => {
      const { sub, outbox, write } = newWriter();
      await write(3);
      await using stream = await openStream(gateway, { sub }, { clientId: outbox.clientId });
      expect(stream.headers).toMatchObject({
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
      });
      expect(stream.headers).not.toHaveProperty("content-encoding");
      await stream.until(({ length }) => length === 6);
      await write(2);
      await stream.until(({ length }) => length === 10);
      const path = `/v1/changes?clientId=${outbox.clientId}`;
      const { body } = await gateway.as({ sub }).get(path);
      expect(stream.events.map(({ data }) => data)).toEqual(body.changes);
      for (const [index, { id }] of stream.events.entries()) {
        const after = await gateway.as({ sub }).get(`${path}&cursor=${id}`);
        expect(after.body.changes).toEqual(body.changes.slice(index + 1));
      }
    },
  );

  test("goes on from `Last-Event-ID`, rather than from `cursor`, wherever it broke off", slow, async () => {
    const { sub, write } = newWriter();
    const first = await openStream(gateway, { sub });
    await first.until(() => first.status === 200);
    await write(1);
    await first.until(({ length }) => length === 1);
    const cursor = first.lastId() ?? "";
    await write(4);
    await first.until(({ length }) => length >= 3);
    first.break();
    const lastEventId = first.events[2]?.id ?? "";
    await write(1);
    await using second = await openStream(gateway, { sub }, { cursor, lastEventId });
    await second.until((events) => numbers(events).includes(5));
    expect(numbers([...first.events.slice(0, 3), ...second.events])).toEqual(upTo(6));
  });

  test("with `hint=true` sends cursors only, one for all that has happened", slow, async () => {
    const { sub, write } = newWriter();
    await write(5);
    await using stream = await openStream(gateway, { sub }, { hint: true });
    await stream.until(({ length }) => length === 1);
    await write(1);
    await stream.until(({ length }) => length >= 2);
    for (const { event, id, data } of stream.events)
      expect([event, data]).toEqual(["cursor", { cursor: id }]);
    const { body } = await gateway.as({ sub }).get(`/v1/changes?cursor=${stream.events[0]?.id}`);
    expect(body.changes).toHaveLength(1);
  });

  test("of a reader who is told nothing gets comments", slow, async () => {
    await using stream = await openStream(gateway, { sub: randomUUID() });
    await vi.waitFor(() => expect(stream.comments()).toBeGreaterThan(1), { timeout: 20_000 });
    expect(stream.events).toEqual([]);
  });

  test(
    "tells a record that has left the reader's scopes, and never one that is not in them",
    slow,
    async () => {
      const [{ sub, outbox }, other] = [newWriter(), newWriter()];
      await using stream = await openStream(gateway, { sub });
      await using others = await openStream(gateway, { sub: other.sub });
      const recordId = tempId();
      outbox.add({ op: "create", recordId, data: { mentor: sub, n: 0 } });
      await gateway.as({ sub }).upload(outbox.batch());
      await stream.until(({ length }) => length === 1);
      outbox.add({ op: "update", recordId, data: { mentor: other.sub } });
      await gateway.as({ sub }).upload(outbox.batch());
      await stream.until(({ length }) => length === 2);
      await others.until(({ length }) => length === 1);
      expect(stream.events[1]?.data.type).toBe("revoke");
      expect(others.events[0]?.data.type).toBe("upsert");
    },
  );
});

describe("many streams in one scope", () => {
  test(
    "each get everything once and in order while writes go on, with their own temp IDs and outcomes alone",
    slow,
    async () => {
      const group = `group-${randomUUID()}`;
      const writers = Array.from({ length: 3 }, () => newWriter());
      const all = [...writers, ...Array.from({ length: 27 }, () => newWriter())];
      const streams = await Promise.all(
        all.map(({ sub, outbox }) =>
          openStream(gateway, { sub, groups: [group] }, { clientId: outbox.clientId }),
        ),
      );
      await Promise.all(
        writers.map(async ({ write }) => {
          for (let round = 0; round < 10; round++) await write(2, { mentor: "nobody", group });
        }),
      );
      for (const stream of streams) await stream.until((events) => numbers(events).length >= 60);
      for (const [index, { events }] of streams.entries()) {
        const records = events.filter(({ data }) => data.type === "upsert");
        expect(records).toHaveLength(60);
        const isWriter = index < writers.length;
        expect(records.filter(({ data }) => "tempId" in data)).toHaveLength(isWriter ? 20 : 0);
        const { body } = await gateway
          .as({ sub: all[index]!.sub, groups: [group] })
          .get(`/v1/changes?clientId=${all[index]!.outbox.clientId}`);
        await streams[index]!.until(({ length }) => length >= body.changes.length);
        expect(events.map(({ data }) => data)).toEqual(body.changes);
      }
      for (const stream of streams) await stream[Symbol.asyncDispose]();
    },
  );
});

describe("a stream ends", () => {
  test("with the token, and says so", slow, async () => {
    // Tokens are honoured for 30 s longer, since clocks differ.
    const exp = Math.floor(Date.now() / 1_000) - 27;
    await using stream = await openStream(gateway, { sub: randomUUID(), exp });
    expect(stream.status).toBe(200);
    await stream.closed;
    expect(end(stream)?.data).toEqual({ reason: "token-expired" });
  });

  test("when the client has opened another one", slow, async () => {
    const { sub, outbox, write } = newWriter();
    await using older = await openStream(gateway, { sub }, { clientId: outbox.clientId });
    await using stranger = await openStream(gateway, { sub }, { clientId: randomUUID() });
    await using newer = await openStream(gateway, { sub }, { clientId: outbox.clientId });
    await older.closed;
    expect(end(older)?.data).toEqual({ reason: "replaced" });
    await write(1);
    for (const stream of [stranger, newer]) await stream.until((events) => numbers(events).length === 1);
  });

  test("when its reader takes nothing, who then goes on where it was", slow, async () => {
    const { sub, write } = newWriter();
    await using stream = await openStream(gateway, { sub });
    const { lastId, events } = stream;
    await write(1);
    await stream.until(({ length }) => length === 1);
    stream.pause();
    const cut = async (): Promise<number> => {
      const { text } = await gateway.as().get("/metrics");
      return Number(/tidegate_streams_ended_total\{reason="slow-reader"\} (\d+)/.exec(text)?.[1] ?? 0);
    };
    // What the kernel takes for a reader who doesn't is several megabytes.
    const note = "x".repeat(200_000);
    for (let round = 0; round < 4; round++) await write(15, { note });
    await vi.waitFor(async () => expect(await cut()).toBe(1), { timeout: 30_000, interval: 100 });
    expect(gateway.log.some((line) => line.includes("slow-reader"))).toBe(true);
    stream.resume();
    await stream.closed;
    expect(end(stream)?.data).toEqual({ reason: "slow-reader" });
    expect(numbers(events).length).toBeLessThan(61);
    await using next = await openStream(gateway, { sub }, { lastEventId: lastId() ?? "" });
    await next.until(() => numbers(next.events).at(-1) === 60);
    expect(numbers([...events, ...next.events])).toEqual(upTo(61));
  });

  test("without a word when its reader does not come back to hear it", slow, async () => {
    const { sub, write } = newWriter();
    await using stream = await openStream(gateway, { sub });
    stream.pause();
    const note = "x".repeat(200_000);
    for (let round = 0; round < 4; round++) await write(15, { note });
    await vi.waitFor(() => expect(stream.isCut()).toBe(true), { timeout: 30_000, interval: 100 });
  });

  test("before it begins with 410 for a cursor that is not honoured", slow, async () => {
    const stream = await openStream(gateway, { sub: randomUUID() }, { lastEventId: "damaged" });
    await stream.closed;
    expect([stream.status, stream.headers["content-type"]]).toEqual([
      410,
      "application/problem+json; charset=utf-8",
    ]);
    expect(JSON.parse(stream.text())).toMatchObject({ type: "urn:tidegate:problem:cursor-expired" });
  });

  test("when the process stops, at once", slow, async () => {
    const another = await gateway.another("api");
    const stream = await openStream(another, { sub: randomUUID() });
    const closed = another.close();
    await stream.closed;
    expect(end(stream)?.data).toEqual({ reason: "stopping" });
    await closed;
  });
});
