import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "../replay/capabilities.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { added, caughtUp } from "./pair.ts";

const operations = ["create", "update", "delete"] as const;
type Operation = (typeof operations)[number];

const losses: [string, Fault][] = [
  ["the request is lost", faults.loseRequest()],
  ["the reply is lost", faults.loseReply()],
  ["a timeout after the effect", faults.hang()],
  ["a 503 after the effect", faults.status(503, { effect: true })],
];

const system = (url: string): object => (capabilities(url) as { crm: object }).crm;

describe("whatever the queues are on", { timeout: 180_000 }, () => {
  const queues = "postgres";
  let primary: ScriptedUpstream;
  let shadow: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    primary = await startScriptedUpstream(storeOptions);
    shadow = await startScriptedUpstream(storeOptions);
    shadow.seed("elsewhere", ['{"id":7000}']);
    gateway = await startGateway({
      queues,
      upstreams: { crm: system(primary.url), next: { ...system(shadow.url), role: "shadow" } },
    });
    await added(gateway);
  });
  afterAll(async () => {
    await gateway?.close();
    await primary?.stop();
    await shadow?.stop();
  });

  test.each(classes)(
    "%s: what the shadow does not answer takes effect there once, or asks a person",
    async (name) => {
      const cases = operations.flatMap((op) =>
        losses.map(([what, fault]) => ({ op, what, fault, recordId: tempId() })),
      );
      const phone = newPhone(gateway);
      for (const { op, recordId } of cases)
        if (op !== "create")
          phone.add({
            op: "create",
            entity: name,
            recordId,
            data: { marker: recordId.slice(9), minutes: 45 },
          });
      await phone.replay();
      await caughtUp(gateway);
      const ownIds = await ownIdsOf(gateway);
      const itsCalls = cases.map(({ op, recordId, fault, what }) => {
        const marker = recordId.slice(9);
        const isIts = isCallOf(op, name, { marker, ownId: ownIds.get(recordId) ?? "" });
        shadow.script(isIts, fault);
        phone.add({ op, entity: name, recordId, ...dataOf(op, marker) });
        return { op, what, isIts, marker };
      });
      expect(linesOf(await phone.replay())).toEqual(cases.map(() => "applied"));
      await caughtUp(gateway);
      const held = shadow
        .records(name)
        .map((text) => JSON.parse(text) as { marker: string; minutes: number });
      for (const { op, what, isIts, marker } of itsCalls) {
        const its = held.filter((record) => record.marker === marker);
        const effects = shadow.effects.filter(({ request }) => isIts(request));
        const says = `${op}: ${what}`;
        if (name === "opaque") expect(shadow.requests.filter(isIts), says).toHaveLength(1);
        else {
          expect(
            its.map(({ minutes }) => minutes),
            says,
          ).toEqual(op === "delete" ? [] : [op === "create" ? 45 : 50]);
          if (!isRepeated(name, op)) expect(effects, says).toHaveLength(1);
        }
      }
      const states = await rowsOf<{ state: string }>(gateway.database, "select state from delivery");
      expect(states.map(({ state }) => state)).toEqual(name === "opaque" ? cases.map(() => "parked") : []);
    },
  );
});

/** What the shadow calls the records, by their temp IDs. */
async function ownIdsOf({ database }: TestGateway): Promise<Map<string, string>> {
  const rows = await rowsOf<{ temp_id: string; own_id: string }>(
    database,
    "select m.temp_id, r.own_id from shadow_record r join id_map m using (entity, server_id)",
  );
  return new Map(rows.map((row) => [`urn:uuid:${row.temp_id}`, row.own_id]));
}

/** These are sent again as they are; the shadow ends in the same state. */
function isRepeated(name: CapabilityClass, op: Operation): boolean {
  return (name === "upsert" && op !== "delete") || (name === "client-id" && op === "update");
}

function isCallOf(
  op: Operation,
  name: CapabilityClass,
  { marker, ownId }: { marker: string; ownId: string },
): (request: RecordedRequest) => boolean {
  if (op === "create") return ({ method, body }) => method !== "GET" && body.toString().includes(marker);
  const itsMethod = op === "update" ? "PATCH" : "DELETE";
  return ({ method, path }) => method === itsMethod && path === `/${name}/${ownId}`;
}

function dataOf(op: Operation, marker: string): object {
  if (op === "delete") return {};
  return { data: op === "create" ? { marker, minutes: 45 } : { minutes: 50 } };
}
