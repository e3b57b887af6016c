import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import type { Fault } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { polled, stamps } from "./polled.ts";
import { newReader, type Reader } from "./reader.ts";

/** The effect takes place at once, and the answer comes once the gate is open. */
function answeredLate(gate: Promise<void>): Fault {
  return async ({ apply, send }) => {
    const answer = apply();
    await gate;
    send(answer);
  };
}

async function opened(more: Parameters<typeof polled>[1] = {}) {
  const upstream = await startScriptedUpstream({ ...stamps, idempotencyHeader: "Idempotency-Key" });
  const gateway = await startGateway({ upstreams: polled(upstream.url, more) });
  const phone = newPhone(gateway);
  const [mine, others] = [newReader(phone.api, phone.clientId), newReader(gateway.as())];
  const gate = Promise.withResolvers<void>();
  return {
    upstream,
    gateway,
    phone,
    mine,
    others,
    gate,
    async [Symbol.asyncDispose]() {
      gate.resolve();
      await gateway.close();
      await upstream.stop();
    },
  };
}

/** What a reader was told of records, in order. */
const lines = ({ told }: Reader): string[] =>
  told.flatMap(({ type, version, tempId: name, result }) =>
    type === "outcome"
      ? (result?.status ?? "")
      : `${type}${version ? ` v${version}` : ""}${name ? " named" : ""}`,
  );

async function applied(phone: Phone): Promise<void> {
  expect(new Set(linesOf(await phone.settled()))).toEqual(new Set(["applied"]));
}

describe(
  "the echo of our own change, also if it comes before our answer, is told once",
  { timeout: 60_000 },
  () => {
    test("an update, and the client's next one does not conflict with it", async () => {
      await using all = await opened();
      const { upstream, phone, mine, others, gate } = all;
      upstream.seed("activities", ['{"id":1,"n":0}']);
      await others.until(() => others.held.size === 1);
      const baseVersion = others.held.get("activity/1")?.version;
      upstream.script({ method: "PATCH" }, answeredLate(gate.promise));
      phone.add({ op: "update", recordId: "1", baseVersion, data: { n: 1 } });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.get("activity/1")?.data?.["n"] === 1);
      gate.resolve();
      await applied(phone);
      phone.add({ op: "update", recordId: "1", baseVersion, data: { n: 2 } });
      await phone.send();
      await applied(phone);
      await mine.until(() => lines(mine).filter((line) => line === "applied").length === 2);
      await others.until(() => others.held.get("activity/1")?.data?.["n"] === 2);
      expect(lines(others)).toEqual(["upsert v1", "upsert v2", "upsert v3"]);
    });

    test("an update that somebody else's change came before interrupts the client's own edits", async () => {
      await using all = await opened();
      const { upstream, phone, others, gate } = all;
      const watcher = newReader(all.gateway.as());
      upstream.seed("activities", ['{"id":1,"n":0}']);
      await others.until(() => others.held.size === 1);
      const baseVersion = others.held.get("activity/1")?.version;
      upstream.script({ method: "PATCH" }, async ({ apply, send }) => {
        upstream.change("activities", "1", '{"m":1}');
        await watcher.until(() => watcher.held.get("activity/1")?.data?.["m"] === 1);
        const answer = apply();
        await gate.promise;
        send(answer);
      });
      phone.add({ op: "update", recordId: "1", baseVersion, data: { n: 1 } });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.get("activity/1")?.data?.["n"] === 1);
      gate.resolve();
      await applied(phone);
      phone.add({ op: "update", recordId: "1", baseVersion, data: { m: 2 } });
      expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
      expect(lines(others)).toEqual(["upsert v1", "upsert v2", "upsert v3"]);
    });

    test("an update that somebody else's change came after, and was seen with, interrupts the client's own edits", async () => {
      await using all = await opened();
      const { upstream, phone, others, gate } = all;
      upstream.seed("activities", ['{"id":1,"n":0,"m":0}']);
      await others.until(() => others.held.size === 1);
      const baseVersion = others.held.get("activity/1")?.version;
      upstream.script({ method: "PATCH" }, async ({ apply, send }) => {
        const answer = apply();
        upstream.change("activities", "1", '{"m":1}');
        await gate.promise;
        send(answer);
      });
      phone.add({ op: "update", recordId: "1", baseVersion, data: { n: 1 } });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.get("activity/1")?.data?.["m"] === 1);
      gate.resolve();
      await applied(phone);
      phone.add({ op: "update", recordId: "1", baseVersion, data: { m: 2 } });
      expect(linesOf(await phone.replay())).toEqual(["conflict upstream-conflict"]);
      expect(lines(others)).toEqual(["upsert v1", "upsert v2"]);
    });

    test("a merge with what a clerk has changed, which is nobody's second change and counts as the clerk's", async () => {
      await using all = await opened({ entity: { conflict: "merge" } });
      const { upstream, phone, mine, others, gate } = all;
      upstream.seed("activities", ['{"id":1,"n":0,"m":0}']);
      await others.until(() => others.held.size === 1);
      const baseVersion = others.held.get("activity/1")?.version;
      upstream.script({ method: "PATCH" }, answeredLate(gate.promise));
      upstream.change("activities", "1", '{"m":1}');
      phone.add({ op: "update", recordId: "1", baseVersion, base: { n: 0 }, data: { n: 1 } });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.get("activity/1")?.data?.["n"] === 1);
      gate.resolve();
      await applied(phone);
      phone.add({ op: "update", recordId: "1", baseVersion, base: { n: 1 }, data: { n: 2 } });
      phone.add({ op: "update", recordId: "1", baseVersion, base: { m: 0 }, data: { m: 2 } });
      await phone.send();
      expect(linesOf(await phone.settled())).toEqual(["applied", "applied", "conflict upstream-conflict"]);
      await mine.until(() => lines(mine).filter((line) => line === "applied").length === 2);
      await others.until(() => others.held.get("activity/1")?.data?.["n"] === 2);
      expect(others.held.get("activity/1")?.data).toMatchObject({ n: 2, m: 1 });
      const told = others.told.map(({ data }) => `${String(data?.["n"])} ${String(data?.["m"])}`);
      expect(new Set(told).size).toBe(told.length);
    });

    test("a delete", async () => {
      await using all = await opened({ poll: { sweepEveryMs: 100 } });
      const { upstream, phone, mine, others, gate } = all;
      upstream.seed("activities", ['{"id":1,"n":0}']);
      await others.until(() => others.held.size === 1);
      upstream.script({ method: "DELETE" }, answeredLate(gate.promise));
      phone.add({ op: "delete", recordId: "1" });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.size === 0);
      gate.resolve();
      await applied(phone);
      await mine.until(() => lines(mine).includes("applied"));
      await others.until(() => true);
      expect(lines(others)).toEqual(["upsert v1", "delete"]);
    });

    test("a create that carries our reference is known under its temp ID at once", async () => {
      await using all = await opened({ entity: { reference: "/externalRef" } });
      const { upstream, phone, mine, others, gate } = all;
      upstream.script({ method: "POST" }, answeredLate(gate.promise));
      phone.add({ op: "create", recordId: tempId(), data: { n: 1 } });
      await phone.send({ wait: 0 });
      await mine.until(() => mine.held.size === 1);
      expect(lines(mine)).toEqual(["upsert v1 named"]);
      gate.resolve();
      await applied(phone);
      await mine.until(() => lines(mine).includes("applied"));
      await others.until(() => true);
      expect(lines(mine)).toEqual(["upsert v1 named", "applied"]);
      expect(lines(others)).toEqual(["upsert v1"]);
    });

    test("a create without a reference is nobody's news while it is under way", async () => {
      await using all = await opened();
      const { upstream, phone, mine, others, gate } = all;
      upstream.seed("mentors", ['{"id":7}']);
      upstream.script({ method: "POST" }, answeredLate(gate.promise));
      phone.add({ op: "create", recordId: tempId(), data: { n: 1 } });
      await phone.send({ wait: 0 });
      // Read by itself twice: it was seen, and is waited for.
      await upstream.received({ method: "GET", path: /^\/activities\/\d+$/ }, 2);
      await others.until(() => others.held.has("mentor/7"));
      expect(others.held.size).toBe(1);
      gate.resolve();
      await applied(phone);
      await mine.until(() => lines(mine).includes("applied"));
      await others.until(() => others.held.size === 2);
      expect(lines(mine).filter((line) => line.endsWith("named"))).toEqual(["upsert v1 named"]);
      expect(lines(others)).toEqual(["upsert v1", "upsert v1"]);
    });

    test("and is made known in the end, though the create never gets its answer", async () => {
      await using all = await opened({ upstream: { timeoutMs: 1_000 } });
      const { upstream, phone, mine, others, gate } = all;
      upstream.always({ method: "POST" }, answeredLate(gate.promise));
      phone.add({ op: "create", recordId: tempId(), data: { n: 1 } });
      await phone.send({ wait: 0 });
      await others.until(() => others.held.size === 1);
      expect(lines(others)).toEqual(["upsert v1"]);
      gate.resolve();
      await applied(phone);
      await mine.until(() => lines(mine).includes("applied"));
      expect([...mine.held.values()]).toMatchObject([{ tempId: expect.any(String) as string }]);
    });
  },
);
