import { describe, expect, test } from "vitest";

import { aRecord, creation, failureOf, operationsOf, saying, started } from "./calls.ts";
import type { Fault, Kind } from "./kind.ts";

const hangMs = 400;

function tooLate(): never {
  throw new Error("the lease is over");
}

/** What is told as not sent, as refused, as ambiguous; deadlines, aborts, the moment before a request is written. */
export function describeFailures(kind: Kind): void {
  const { entity, can } = kind;
  const operations = operationsOf(kind);

  describe.for(operations)("$name that fails", (operation) => {
    test("is not sent where nobody listens", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      await subject.server.stop();
      const failure = await failureOf(operation.run(subject, id));
      expect(failure).toMatchObject({ certainty: "not-sent", disposition: "retry" });
    });

    // What a delete's success says besides does not matter.
    const unclear = ["lose-request", "lose-reply", ...(operation.name === "delete" ? [] : ["garbage"])];
    test.for(unclear as Fault[])("is ambiguous after: %s", async (fault) => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      subject.server.next(fault);
      expect(await failureOf(operation.run(subject, id))).toMatchObject({ certainty: "ambiguous" });
    });

    test("is cut at its deadline, as ambiguous, and the next call is none the worse", async () => {
      const subject = await started(kind, { timeoutMs: hangMs });
      const [id, other] = subject.server.seed([aRecord(), aRecord()]) as [string, string];
      subject.server.next("hang");
      expect(await failureOf(operation.run(subject, id))).toMatchObject({ certainty: "ambiguous" });
      await operation.run(subject, other);
    });

    test("is not sent when its caller has stopped before", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      const failure = await failureOf(operation.run(subject, id, { signal: AbortSignal.abort() }));
      expect(failure).toMatchObject({ certainty: "not-sent" });
      expect(subject.server.requests()).toEqual([]);
    });

    test("is ambiguous when its caller stops while the server is at work", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      const stopping = new AbortController();
      subject.server.next("hang");
      const failure = failureOf(operation.run(subject, id, { signal: stopping.signal }));
      await expect.poll(() => subject.server.requests().length).toBe(1);
      stopping.abort();
      expect(await failure).toMatchObject({ certainty: "ambiguous" });
    });

    test("is given up at the server too when its caller stops", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      const stopping = new AbortController();
      subject.server.next("hang");
      const failure = failureOf(operation.run(subject, id, { signal: stopping.signal }));
      await expect.poll(() => subject.server.hanging()).toBe(1);
      stopping.abort();
      await failure;
      await expect.poll(() => subject.server.hanging()).toBe(0);
    });

    test("is not sent, and nothing arrives, when it may not start", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      const failure = await failureOf(operation.run(subject, id, { mayStart: tooLate }));
      expect(failure).toMatchObject({ certainty: "not-sent" });
      expect(subject.server.requests()).toEqual([]);
      expect(subject.server.records()).toHaveLength(1);
    });
  });

  describe("each request that is written", () => {
    test.for(operations)("$name asks first whether it may start, before it arrives", async (operation) => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      const arrivedBefore: number[] = [];
      const mayStart = (): void => void arrivedBefore.push(subject.server.requests().length);
      await operation.run(subject, id, { mayStart });
      const count = subject.server.requests().length;
      expect(count).toBeGreaterThan(0);
      // Whoever asks twice does no harm.
      expect([...new Set(arrivedBefore)]).toEqual(Array.from({ length: count }, (_, index) => index));
    });
  });

  describe("answers", () => {
    test.for(can.failures)("one that means %s is told as that, and that nothing was done", async (answer) => {
      const subject = await started(kind);
      subject.server.next({ answer });
      const failure = await failureOf(subject.connector.create(creation(kind)));
      expect(failure.systemic).toBe(answer === "systemic");
      if (answer !== "systemic") expect(failure.disposition).toBe(answer);
      expect(failure.certainty).toBe("refused");
      expect(subject.server.records()).toEqual([]);
      expect((failure.excerpt ?? "").length).toBeLessThanOrEqual(500);
    });

    test("one that fails says nothing of the record", async () => {
      const [answer] = can.failures.filter((each) => each === "reject");
      if (answer === undefined) return;
      const subject = await started(kind);
      subject.server.next({ answer });
      const secret = "Kari 90 12 34 56 kari@example.org";
      const failure = await failureOf(
        subject.connector.create(creation(kind, "opaque", aRecord(45, JSON.stringify(secret)))),
      );
      for (const told of [failure.message, failure.excerpt ?? ""]) {
        expect(told).not.toContain("90 12 34 56");
        expect(told).not.toContain("kari@example.org");
      }
    });
  });

  test("calls beside each other do not mix", async () => {
    const subject = await started(kind);
    const minutes = Array.from({ length: 12 }, (_, index) => index + 1);
    const made = await Promise.all(
      minutes.map((each) => subject.connector.create(creation(kind, "opaque", aRecord(each)))),
    );
    const read = await Promise.all(made.map((one) => subject.connector.read({ entity, id: one!.id })));
    expect(read.map((one) => saying(one?.body).minutes)).toEqual(minutes);
  });

  test("a closed connector ends what is in flight, and sends nothing more", async () => {
    const subject = await started(kind);
    const { connector, server } = subject;
    server.next("hang");
    const failure = failureOf(connector.create(creation(kind)));
    await expect.poll(() => server.requests().length).toBe(1);
    await connector.close();
    expect(await failure).toMatchObject({ certainty: "ambiguous" });
    expect(await failureOf(connector.create(creation(kind)))).toMatchObject({ certainty: "not-sent" });
    expect(server.requests()).toHaveLength(1);
  });
}
