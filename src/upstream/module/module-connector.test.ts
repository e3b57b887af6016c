import { pino } from "pino";
import { describe, expect, onTestFinished, test } from "vitest";

import { faults } from "../../../test/fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import type * as own from "../../connector-module.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { UpstreamError, type Connector } from "../connector.ts";
import { failuresOf } from "./failures.ts";
import { guardConnector } from "./module-connector.ts";
import { openModuleHttp } from "./module-http.ts";

const entity = "activity";
const create = { entity, body: '{"minutes":45}', idempotencyKey: "k-1" };
const update = { entity, id: "7", patch: '{"minutes":50}', body: '{"minutes":50}', idempotencyKey: "k-2" };
const tempId = "urn:uuid:00000000-0000-4000-8000-000000000001";
const failure = failuresOf({ statuses: {} });
const config = aRestUpstream("http://old.example", { entity: { reference: "/ref" } });

const notHere = (): Promise<never> => Promise.reject(new Error("not part of this test"));
const idle: own.Connector = { create: notHere, update: notHere, delete: notHere, read: notHere };

/** A connector of which each function does what the test says. */
function guarded(parts: Partial<own.Connector>, more: Partial<UpstreamConfig> = {}): Connector {
  const connector = guardConnector({ ...idle, ...parts }, { ...config, ...more }, { log });
  onTestFinished(() => connector.close());
  return connector;
}

function leaseIsOver(): never {
  throw new Error("the lease is over");
}

const lines: string[] = [];
const log = pino({}, { write: (line: string) => void lines.push(line) });

async function failureOf(work: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await work.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

/** As an author without types might write it. */
const given = (value: unknown) => () => Promise.resolve(value as never);

/** Pages without records, but for the one named `last`. */
const upTo =
  (last: string) =>
  ({ after = "0" }: own.ListCall): Promise<own.Page> => {
    const isLast = after === last;
    return Promise.resolve(
      isLast ? { records: [{ id: "7", body: "{}" }] } : { records: [], next: String(Number(after) + 1) },
    );
  };

describe("what a module gives", () => {
  test.for([
    ["a text", "7"],
    ["no ID", { version: "1" }],
    ["a number for an ID", { id: 7 }],
    ["an empty ID", { id: "" }],
    ["an ID that Postgres can't keep", { id: "7\0" }],
    ["an ID that is half a character", { id: "7\ud800" }],
    ["an endless ID", { id: "7".repeat(1001) }],
    ["a number for a version", { id: "7", version: 3 }],
    ["an object for a text", { id: "7", body: { minutes: 45 } }],
    ["a list for a record", { id: "7", body: "[]" }],
    ["a record cut off", { id: "7", body: '{"minutes":' }],
  ])("and is of no use (%s) may have taken effect, and is the whole's failure", async ([, value]) => {
    const connector = guarded({ create: given(value), read: given(value), update: given(value) });
    const expected = { certainty: "ambiguous", disposition: "retry", systemic: true };
    expect(await failureOf(connector.create(create))).toMatchObject(expected);
    expect(await failureOf(connector.update(update))).toMatchObject(expected);
    expect(await failureOf(connector.read({ entity, id: "7" }))).toMatchObject(expected);
  });

  test("another record than was asked for is none", async () => {
    const connector = guarded({ read: given({ id: "8", body: "{}" }), update: given({ id: "8" }) });
    expect(await failureOf(connector.read({ entity, id: "7" }))).toMatchObject({ systemic: true });
    expect(await failureOf(connector.update(update))).toMatchObject({ certainty: "ambiguous" });
  });

  test("a record is what it was when it was given", async () => {
    const record = { id: "7", body: '{"minutes":45}' };
    const connector = guarded({ create: given(record) });
    const created = await connector.create(create);
    record.id = "8";
    expect(created).toEqual({ id: "7", version: undefined, body: '{"minutes":45}' });
  });

  test("nothing, or null, is no record", async () => {
    const connector = guarded({ create: given(undefined), read: given(null) });
    expect(await connector.create(create)).toBeUndefined();
    expect(await connector.read({ entity, id: "7" })).toBeUndefined();
  });

  test("a search gives those with our reference; others' alone prove nothing", async () => {
    const ours = { id: "7", body: JSON.stringify({ ref: tempId.toUpperCase() }) };
    const others = { id: "8", body: '{"ref":"urn:uuid:00000000-0000-4000-8000-000000000002"}' };
    const found = async (...records: unknown[]): Promise<unknown> =>
      await guarded({ lookup: given(records) }).lookup({ entity, tempId });
    expect(await found()).toEqual([]);
    expect(await found(others, ours)).toMatchObject([{ id: "7" }]);
    expect(await failureOf(found(others))).toMatchObject({ disposition: "park" });
    expect(await failureOf(found({ id: "7" }))).toMatchObject({ systemic: true });
  });

  test("pages without records are passed over, but not for ever", async () => {
    const page = await guarded({ list: upTo("3") }).list({ entity });
    expect(page).toMatchObject({ records: [{ id: "7" }], next: undefined });
    const endless = guarded({ list: upTo("never") }).list({ entity });
    expect(await failureOf(endless)).toMatchObject({ disposition: "park" });
    const same = given({ records: [{ id: "7", body: "{}" }], next: "2" });
    expect(await failureOf(guarded({ list: same }).list({ entity, after: "2" }))).toMatchObject({
      systemic: true,
    });
    expect(await failureOf(guarded({ list: given([]) }).list({ entity }))).toMatchObject({ systemic: true });
  });
});

describe("what a module throws", () => {
  test("is what it says, if it is a documented failure", async () => {
    const refusal = failure.refused("reject", "closed period of kari@example.org", { status: 422 });
    const connector = guarded({ create: () => Promise.reject(refusal) });
    const told = await failureOf(connector.create(create));
    expect(told).toMatchObject({ certainty: "refused", disposition: "reject", status: 422 });
    expect(told.message).toBe("closed period of …");
  });

  test("may have taken effect, if it is anything else, and is not quoted", async () => {
    const secret = "Kari's note";
    for (const error of [new TypeError(secret), secret, undefined, { certainty: "not-sent" }]) {
      lines.length = 0;
      const throwing = guarded({
        create: () => {
          throw error;
        },
      });
      const told = await failureOf(throwing.create(create));
      expect(told).toMatchObject({ certainty: "ambiguous", disposition: "retry", systemic: false });
      expect(told.message).not.toContain(secret);
      expect(lines).toHaveLength(1);
      expect(lines[0]).not.toContain(secret);
    }
    expect(lines[0]).toContain("the connector failed");
  });

  test("a disposition that there is not is a slip, and so unclear", async () => {
    const slip = "rejct" as "reject";
    const connector = guarded({ create: () => Promise.reject(failure.refused(slip, "no")) });
    const wrong = guarded({ create: async () => await Promise.reject(failure.refused(slip, "no")) });
    expect(await failureOf(connector.create(create))).toMatchObject({ certainty: "ambiguous" });
    expect(await failureOf(wrong.create(create))).toMatchObject({ certainty: "ambiguous" });
  });
});

describe("a call", () => {
  test("that may not start does not reach the module", async () => {
    let calls = 0;
    const connector = guarded({
      create: () => {
        calls++;
        return Promise.resolve(undefined);
      },
    });
    const stopped = { ...create, signal: AbortSignal.abort() };
    expect(await failureOf(connector.create({ ...create, mayStart: leaseIsOver }))).toMatchObject({
      certainty: "not-sent",
    });
    expect(await failureOf(connector.create(stopped))).toMatchObject({ certainty: "not-sent" });
    expect(calls).toBe(0);
  });

  test("ends at its deadline, whether or not the module lets go", async () => {
    const heard: unknown[] = [];
    const deaf = guarded({ create: () => new Promise(() => undefined) }, { timeoutMs: 100 });
    const heeding = ({ signal }: own.Call): Promise<never> =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          heard.push(signal.reason);
          reject(failure.notSent("still connecting"));
        });
      });
    expect(await failureOf(deaf.create(create))).toMatchObject({ certainty: "ambiguous" });
    const told = await failureOf(guarded({ create: heeding }, { timeoutMs: 100 }).create(create));
    expect(told).toMatchObject({ certainty: "not-sent" });
    expect(heard).toHaveLength(1);
  });

  test("that goes on after its deadline has no say, and may not send", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const asked: unknown[] = [];
    const late = async (call: own.CreateCall): Promise<own.UpstreamRecord> => {
      await promise;
      try {
        call.mayStart();
        asked.push("sent");
      } catch (error) {
        asked.push(error);
      }
      return { id: "7" };
    };
    const failed = await failureOf(guarded({ create: late }, { timeoutMs: 100 }).create(create));
    expect(failed).toMatchObject({ certainty: "ambiguous" });
    resolve();
    await expect.poll(() => asked).toHaveLength(1);
    expect(asked[0]).toBeInstanceOf(UpstreamError);
  });

  test("that never ends takes a place, until there is none", async () => {
    const bounds = { timeoutMs: 50, concurrency: 2 };
    const connector = guarded({ create: () => new Promise(() => undefined) }, bounds);
    for (const _ of [1, 2])
      expect(await failureOf(connector.create(create))).toMatchObject({ certainty: "ambiguous" });
    expect(await failureOf(connector.create(create))).toMatchObject({
      certainty: "not-sent",
      systemic: true,
    });
  });

  test("knows its deadline, for whom it is, and which it is", async () => {
    const calls: own.CreateCall[] = [];
    const connector = guarded({
      create: (call) => {
        calls.push(call);
        return Promise.resolve(undefined);
      },
    });
    await connector.create({ ...create, actor: "kari", requestId: "r-1", id: "9" });
    expect(calls[0]).toMatchObject({ ...create, actor: "kari", requestId: "r-1", id: "9" });
    expect(calls[0]!.remainingMs()).toBeGreaterThan(0);
    expect(calls[0]!.remainingMs()).toBeLessThanOrEqual(config.timeoutMs);
  });

  test("that can't be made, for want of a list, is not sent", async () => {
    expect(await failureOf(guarded({}).list({ entity }))).toMatchObject({ certainty: "not-sent" });
  });
});

describe("calls by HTTP", () => {
  type Send = (call: own.Call, request: own.HttpRequest) => Promise<own.HttpAnswer>;

  /** A connector whose create is what the test makes of `send`. */
  async function over(
    work: (send: Send, call: own.Call) => Promise<unknown>,
    more: Partial<UpstreamConfig> = {},
  ): Promise<{ upstream: ScriptedUpstream; connector: Connector }> {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.stop());
    const there = { ...config, baseUrl: `${upstream.url}/old`, ...more };
    const http = openModuleHttp(there);
    const makes = async (call: own.CreateCall): Promise<undefined> =>
      void (await work((...sent) => http.send(...sent), call));
    const connector = guardConnector({ ...idle, create: makes }, there, {
      log,
      beneath: http,
    });
    onTestFinished(() => connector.close());
    return { upstream, connector };
  }

  const post = { method: "POST", path: "/activities", body: "{}" };
  const get = { method: "GET", path: "/activities?a=b" };

  test("go below baseUrl with what the configuration says, and tell their status", async () => {
    const statuses: number[] = [];
    const { upstream, connector } = await over(
      (send, call) => send(call, { ...post, headers: { "content-type": "text/xml", SOAPAction: '"a"' } }),
      { auth: { type: "bearer", token: "t" }, actorHeader: "X-User" },
    );
    await connector.create({ ...create, actor: "kari", onStatus: (status) => void statuses.push(status) });
    expect(upstream.requests[0]).toMatchObject({ method: "POST", path: "/old/activities" });
    expect(upstream.requests[0]!.headers).toMatchObject({
      "content-type": "text/xml",
      soapaction: '"a"',
      authorization: "Bearer t",
      "x-user": "kari",
    });
    expect(statuses).toHaveLength(1);
  });

  test.for(["@elsewhere.example", "http://elsewhere.example/", "0/"])(
    "never leave for another server: %s",
    async (path) => {
      const http = openModuleHttp({ ...config, baseUrl: "http://127.0.0.1:1" });
      onTestFinished(() => http.close());
      const call = { ...create, signal: new AbortController().signal } as unknown as own.Call;
      await expect(http.send(call, { ...get, path })).rejects.toThrow(TypeError);
    },
  );

  test("that were not made leave nothing behind", async () => {
    const { upstream, connector } = await over((send, call) => send(call, post));
    await upstream.stop();
    expect(await failureOf(connector.create(create))).toMatchObject({ certainty: "not-sent" });
  });

  test.for([
    ["a change", post, "ambiguous"],
    ["a look", get, "not-sent"],
    ["a look by POST", { ...post, reads: true }, "not-sent"],
  ] as const)("after %s, one that is not sent leaves the call: %s", async ([, first, certainty]) => {
    const there: { stop?: () => Promise<void> } = {};
    const { upstream, connector } = await over(async (send, call) => {
      await send(call, first);
      await there.stop?.();
      await send(call, { ...post, path: "/activities/7/approve" });
    });
    there.stop = () => upstream.stop();
    upstream.script({}, faults.status(200));
    expect(await failureOf(connector.create(create))).toMatchObject({ certainty });
  });

  test("a refusal after a change does not say that nothing was done", async () => {
    const { upstream, connector } = await over(async (send, call) => {
      await send(call, post);
      throw failure.ofStatus("create", await send(call, post));
    });
    upstream.script({}, faults.status(201), faults.status(422));
    expect(await failureOf(connector.create(create))).toMatchObject({
      certainty: "ambiguous",
      disposition: "park",
    });
  });

  test("what a single answer means is the module's to say, whatever its status", async () => {
    const { upstream, connector } = await over(async (send, call) => {
      const { status } = await send(call, post);
      throw failure.refused("conflict", "Fault: it has changed", { status });
    });
    upstream.script({}, faults.status(500));
    const told = { certainty: "refused", disposition: "conflict", status: 500 };
    expect(await failureOf(connector.create(create))).toMatchObject(told);
  });
});
