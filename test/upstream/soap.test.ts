import { fileURLToPath } from "node:url";

import { expect, test } from "vitest";

import { startLegacyService, type LegacyService } from "../../examples/soap/legacy-service.ts";
import { startFaultyProxy } from "../conformance/faulty-proxy.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { newReader } from "../inbound/reader.ts";
import { newPhone } from "../replay/phone.ts";

const user = { user: "gateway", password: "a <secret> & more" };
const module = fileURLToPath(new URL("../../examples/soap/connectors/activities.ts", import.meta.url));

const legacy = (baseUrl: string, rest: object = {}, entity: object = {}): object => ({
  legacy: {
    role: "primary",
    module,
    settings: user,
    baseUrl,
    retry: { baseMs: 10, capMs: 50 },
    // What lookups wait for after a lost reply.
    timeoutMs: 500,
    entities: {
      activity: {
        toUpstream: "$",
        fromUpstream: '$sift($, function($value, $name) { $name != "changedAt" })',
        ...entity,
      },
    },
    ...rest,
  },
});

const held = ({ activities }: LegacyService): object[] =>
  [...activities.values()].map(
    ({ id: _id, changedAt: _at, externalRef: _ref, version: _version, ...rest }) => rest,
  );

test("an outbox reaches a SOAP service through a module, once, also when replies are lost", async () => {
  await using service = await startService();
  await using proxy = await startProxy(service);
  await using gateway = await startGateway({ upstreams: legacy(proxy.url) });
  const phone = newPhone(gateway);
  const [kept, gone] = [tempId(), tempId()];
  const note = " Kari & Ola <3\r\n";
  phone.add({ op: "create", recordId: kept, data: { minutes: 45, note, mentor: null } });
  phone.add({ op: "create", recordId: gone, data: { minutes: 1 } });
  proxy.next("lose-reply");
  await phone.send();
  await phone.settled();
  phone.add({ op: "update", recordId: kept, data: { minutes: 50 } });
  phone.add({ op: "update", recordId: kept, data: { note: null, date: "" } });
  phone.add({ op: "delete", recordId: gone, data: undefined });
  proxy.next("lose-reply");
  await phone.send();
  const results = await phone.settled();
  expect(results.map(({ status }) => status)).toEqual(Array.from({ length: 5 }, () => "applied"));
  expect(held(service)).toEqual([{ minutes: "50", note: null, mentor: null, date: "" }]);
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 1);
  expect([...reader.held.values()]).toMatchObject([{ data: { minutes: 50, note: null, date: "" } }]);
});

test("what XML can't carry, and what the service's rules forbid, is rejected whole; the rest goes on", async () => {
  await using service = await startService();
  await using gateway = await startGateway({ upstreams: legacy(service.url) });
  const phone = newPhone(gateway);
  phone.add({ op: "create", recordId: tempId(), data: { minutes: 1, note: "a bell: \u0007" } });
  phone.add({ op: "create", recordId: tempId(), data: { minutes: -5 } });
  phone.add({ op: "create", recordId: tempId(), data: { minutes: 7 } });
  const results = await phone.replay();
  expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "applied"]);
  expect(held(service)).toEqual([{ minutes: "7" }]);
});

test("what a clerk has changed in the legacy system meanwhile is a conflict, and reaches the readers", async () => {
  await using service = await startService();
  await using gateway = await startGateway({
    upstreams: legacy(service.url, { poll: { everyMs: 100, sweepEveryMs: 200 } }),
  });
  const phone = newPhone(gateway);
  const record = tempId();
  phone.add({ op: "create", recordId: record, data: { minutes: 45 } });
  const [made] = await phone.replay();
  service.change(made!.recordId!, { minutes: "46" });
  service.seed({ minutes: "12.50" });
  phone.add({ op: "update", recordId: record, baseVersion: made!.version!, data: { minutes: 50 } });
  const [conflict] = await phone.replay();
  expect(conflict).toMatchObject({ status: "conflict", current: { data: { minutes: 46 } } });
  const reader = newReader(gateway.as());
  await reader.until(() => reader.held.size === 2);
  service.change(made!.recordId!, null);
  await reader.until(() => reader.held.size === 1);
});

async function startService(): Promise<LegacyService & AsyncDisposable> {
  const service = await startLegacyService(user);
  return { ...service, [Symbol.asyncDispose]: service.close };
}

async function startProxy({ url }: LegacyService) {
  const proxy = await startFaultyProxy({ target: url, answers: {} });
  return { ...proxy, [Symbol.asyncDispose]: proxy.stop };
}
