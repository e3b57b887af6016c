import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "./capabilities.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";
import { deliveriesOf } from "./rows.ts";

const operations = ["create", "update", "delete"] as const;
type Operation = (typeof operations)[number];

const losses: [string, Fault, boolean][] = [
  ["the request is lost before the effect", faults.loseRequest(), false],
  ["the reply is lost after the effect", faults.loseReply(), true],
  ["the answer is a 503 after the effect", faults.status(503, { effect: true }), true],
  ["the answer is cut off after the effect", faults.truncate(), true],
];

const cases = classes.flatMap((name) =>
  operations.flatMap((op) =>
    losses
      .slice(0, op === "create" ? undefined : 2)
      .map(([what, fault, took]) => ({ name, op, what, fault, took })),
  ),
);
/** These are sent again as they are; the upstream ends in the same state. */
const isRepeated = (name: CapabilityClass, op: Operation): boolean =>
  (name === "upsert" && op !== "delete") || (name === "client-id" && op === "update");

describe.each(queueBackends())("on %s", (queues) => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream(storeOptions);
    gateway = await startGateway({ queues, upstreams: capabilities(upstream.url) });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test.concurrent.each(cases.filter(({ name }) => name !== "opaque"))(
    "$name $op: $what, and it takes effect once",
    async ({ name, op, fault }) => {
      const { phone, marker, recordId, isIts } = await prepared(gateway, name, op);
      upstream.script(isIts, fault);
      const [result] = await act(phone, name, op, { marker, recordId });
      expect(result).toMatchObject({ status: "applied" });
      const effects = upstream.effects.filter(({ request }) => isIts(request));
      if (!isRepeated(name, op)) expect(effects.map((effect) => effect.op)).toEqual([op]);
      const records = upstream.records(name).filter((text) => text.includes(marker));
      expect(records).toHaveLength(op === "delete" ? 0 : 1);
      if (op === "update") expect(JSON.parse(records[0] ?? "")).toMatchObject({ minutes: 50 });
      expect(await deliveriesOf(gateway.database, phone.clientId)).toEqual([]);
    },
  );

  test.concurrent.each(cases.filter(({ name }) => name === "opaque"))(
    "opaque $op: $what, and a person is asked; it is never sent again",
    async ({ name, op, fault, took }) => {
      const { phone, marker, recordId, isIts } = await prepared(gateway, name, op);
      upstream.script(isIts, fault);
      const results = await act(phone, name, op, { marker, recordId });
      expect(linesOf(results)).toEqual(["parked upstream-unclear"]);
      expect(upstream.requests.filter(isIts)).toHaveLength(1);
      expect(upstream.effects.filter(({ request }) => isIts(request))).toHaveLength(took ? 1 : 0);
      expect(await deliveriesOf(gateway.database, phone.clientId)).toMatchObject([
        { state: "parked", possibly_sent: true },
      ]);
      // The lane goes on with what does not depend on it.
      phone.add({ op: "create", entity: name, recordId: tempId(), data: { other: true } });
      expect(linesOf(await phone.replay())).toEqual(["applied"]);
      expect(upstream.requests.filter(isIts)).toHaveLength(1);
    },
  );
});

/** A phone, and for changes a record of its own at the upstream; `isIts` knows the calls that carry the mutation out. */
async function prepared(gateway: TestGateway, name: CapabilityClass, op: Operation) {
  const phone = newPhone(gateway);
  const recordId = tempId();
  const marker = `marker-${recordId.slice(-12)}`;
  if (op === "create") {
    const isIts = ({ method, body }: RecordedRequest) => method !== "GET" && body.toString().includes(marker);
    return { phone, marker, recordId, isIts };
  }
  phone.add({ op: "create", entity: name, recordId, data: { marker, minutes: 45, note: null } });
  const [created] = await phone.replay();
  expect(created).toMatchObject({ status: "applied" });
  const itsPath = `/${name}/${created?.recordId}`;
  const itsMethod = { update: "PATCH", delete: "DELETE" }[op];
  const isIts = ({ method, path }: RecordedRequest) => method === itsMethod && path === itsPath;
  return { phone, marker, recordId, isIts };
}

async function act(
  phone: Phone,
  entity: CapabilityClass,
  op: Operation,
  { marker, recordId }: { marker: string; recordId: string },
) {
  const data = {
    create: { marker, minutes: 45, note: null },
    update: { minutes: 50, note: null },
    delete: undefined,
  };
  phone.add({ op, entity, recordId, ...(data[op] && { data: data[op] }) });
  return await phone.replay();
}
