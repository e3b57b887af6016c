import { pino } from "pino";
import { describe, expect, onTestFinished, test } from "vitest";

import { faults } from "../../test/fixtures/scripted-faults.ts";
import type { StoreOptions } from "../../test/fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../test/fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../../test/fixtures/upstream-config.ts";
import { MappingError } from "./mapping/mapping.ts";
import { openUpstream, type Upstream } from "./upstream.ts";

const log = pino({ level: "silent" });
const tempId = "urn:uuid:6f1e2d3c-0000-4000-8000-00000000abcd";
const key = { entity: "activity", idempotencyKey: "k" };
const create = { ...key, data: '{"minutes":45}' };

async function setup(
  config: Parameters<typeof aRestUpstream>[1] = {},
  options: StoreOptions = {},
): Promise<{ system: ScriptedUpstream; upstream: Upstream }> {
  const system = await startScriptedUpstream(options);
  const upstream = openUpstream("crm", aRestUpstream(system.url, config), { log });
  onTestFinished(async () => {
    await upstream.close();
    await system.stop();
  });
  return { system, upstream };
}

async function failTimes(upstream: Upstream, times: number): Promise<void> {
  for (let n = 0; n < times; n++) await expect(upstream.create(create)).rejects.toThrow();
}

function mayStart(): void {
  throw new Error("the lease is over");
}

describe("shapes", () => {
  const mapped = {
    reference: "/Ref",
    lookup: "{path}?Ref={tempId}",
    toUpstream: '{ "Minutter": minutes }',
    fromUpstream: '{ "minutes": Minutter }',
  };

  test("data goes out mapped and with our reference, and comes back as the phone's", async () => {
    const { system, upstream } = await setup({ entity: mapped });
    const answer = await upstream.create({ ...create, tempId });
    expect(system.effects[0]!.request.body.toString()).toBe(`{"Minutter":45,"Ref":"${tempId}"}`);
    expect(answer).toEqual({ id: "1", version: undefined, data: '{"minutes":45}' });
    expect(await upstream.lookup({ ...key, tempId })).toEqual([answer]);
    expect(await upstream.read({ ...key, id: "1" })).toEqual(answer);
  });

  test("a patch carries no reference, a whole record does", async () => {
    const { system, upstream } = await setup({ entity: mapped });
    const change = { ...key, id: "1", tempId, patch: '{"minutes":50}', data: '{"minutes":50,"other":1}' };
    system.seed("activities", ['{"id":1,"Minutter":45}']);
    await upstream.update(change);
    const put = { method: "PUT", class: "opaque", enabled: true } as const;
    const whole = openUpstream("crm", aRestUpstream(system.url, { entity: { ...mapped, update: put } }), {
      log,
    });
    await whole.update(change);
    await whole.close();
    expect(system.requests.map(({ body }) => body.toString())).toEqual([
      '{"Minutter":50}',
      `{"Minutter":50,"Ref":"${tempId}"}`,
    ]);
  });

  test("data that can't be mapped is not sent", async () => {
    const { system, upstream } = await setup({ entity: mapped });
    await expect(upstream.create({ ...create, data: '{"minutes":9007199254740993}' })).rejects.toThrow(
      MappingError,
    );
    expect(system.requests).toEqual([]);
  });

  test("a created record that can't be mapped back is still known to exist", async () => {
    const { system, upstream } = await setup({ entity: { fromUpstream: '{ "minutes": minutes }' } });
    const answer = await upstream.create({ ...create, data: '{"minutes":9007199254740993}' });
    expect(answer).toMatchObject({
      id: "1",
      data: undefined,
      unreadable: expect.any(MappingError) as MappingError,
    });
    expect(system.effects).toHaveLength(1);
    await expect(upstream.read({ ...key, id: "1" })).rejects.toThrow(MappingError);
  });

  test("a mapping that can't be compiled stops the start and names its place", () => {
    const config = aRestUpstream("http://127.0.0.1:1", { entity: { toUpstream: "{" } });
    expect(() => openUpstream("crm", config, { log })).toThrow(
      /upstreams\.crm\.entities\.activity\.toUpstream: is not JSONata/,
    );
  });
});

describe("the breaker", () => {
  const circuit = { failures: 3, cooldownMs: 60_000 };

  test.for([
    ["lost replies", faults.loseReply()],
    ["5xx", faults.status(500)],
    ["refused access", faults.status(401)],
    ["garbage", faults.garbage()],
  ] as const)("opens after %s in a row, and then nothing is sent", async ([, fault]) => {
    const { system, upstream } = await setup({ circuit });
    system.always({}, fault);
    await failTimes(upstream, 3);
    expect(upstream.circuitState()).toBe("open");
    const refused = upstream.create(create);
    await expect(refused).rejects.toMatchObject({ certainty: "not-sent", disposition: "retry" });
    await expect(refused).rejects.toHaveProperty("retryAfterMs", expect.closeTo(60_000, -4));
    expect(system.requests).toHaveLength(3);
  });

  test.for([400, 404, 409, 422])("a %i is the data's fault and never opens it", async (status) => {
    const { system, upstream } = await setup({ circuit });
    system.always({}, faults.status(status));
    await failTimes(upstream, 5);
    expect(upstream.circuitState()).toBe("closed");
  });

  test("calls that the caller stopped never open it", async () => {
    const { system, upstream } = await setup({ circuit });
    for (let n = 0; n < 5; n++) {
      await expect(upstream.create({ ...create, mayStart })).rejects.toMatchObject({ certainty: "not-sent" });
    }
    expect(upstream.circuitState()).toBe("closed");
    expect(system.requests).toEqual([]);
  });

  test("reads go through it too, and one success after the cooldown closes it", async () => {
    const { system, upstream } = await setup({ circuit: { failures: 1, cooldownMs: 1 } });
    system.script({}, faults.status(503));
    await expect(upstream.read({ ...key, id: "1" })).rejects.toMatchObject({ status: 503 });
    await expect.poll(() => upstream.create(create).catch(() => undefined)).toMatchObject({ id: "1" });
    expect(upstream.circuitState()).toBe("closed");
  });

  test("the engine can open it", async () => {
    const { upstream } = await setup({ circuit });
    upstream.trip();
    await expect(upstream.create(create)).rejects.toMatchObject({ certainty: "not-sent" });
  });
});

test("no more calls in flight than configured; the others wait, and can be stopped while they do", async () => {
  const { system, upstream } = await setup({ concurrency: 2 });
  const { promise, resolve } = Promise.withResolvers<void>();
  const letGo = system.always({}, faults.hold(promise));
  const stop = new AbortController();
  const calls = [create, create, create, { ...create, signal: stop.signal }].map((call) =>
    upstream.create(call),
  );
  await system.received({}, 2);
  expect([upstream.inFlight(), upstream.waiting()]).toEqual([2, 2]);
  stop.abort();
  await expect(calls[3]).rejects.toMatchObject({ certainty: "not-sent", disposition: "retry" });
  letGo();
  resolve();
  await Promise.all(calls.slice(0, 3));
  expect(system.effects).toHaveLength(3);
  expect(upstream.inFlight()).toBe(0);
});

test("calls in a row arrive in their order on whatever connections", async () => {
  const { system, upstream } = await setup();
  for (let n = 0; n < 50; n++) await upstream.create({ ...create, data: `{"n":${n}}` });
  expect(system.effects.map(({ record }) => (JSON.parse(record!) as { n: number }).n)).toEqual(
    Array.from({ length: 50 }, (_, n) => n),
  );
});

test.each([
  ["an ID with NUL", '{"id":"a\\u0000b"}'],
  ["an ID of half a character", '{"id":"\\ud800"}'],
  ["an ID of pages", `{"id":"${"x".repeat(1_001)}"}`],
  ["a version with NUL", '{"id":1,"version":"\\u0000"}'],
])("%s is not taken over: the call is unclear, and a person decides", async (_, body) => {
  const { system, upstream } = await setup({ entity: { version: { pointer: "/version" } } });
  const parked = { certainty: "ambiguous", disposition: "park" };
  const createdSo = system.always({}, faults.status(200, { body }));
  await expect(upstream.create(create)).rejects.toMatchObject(parked);
  createdSo();
  const listedSo = system.always({}, faults.status(200, { body: `[${body}]` }));
  await expect(upstream.list({ entity: "activity" })).rejects.toMatchObject(parked);
  listedSo();
  // Whoever observes has the others on the page, and passes over it.
  system.always({}, faults.status(200, { body: `[${body},{"id":2}]` }));
  const { records } = await upstream.observePage({ entity: "activity" });
  expect(records.map(({ id }) => id)).toContain("2");
});
