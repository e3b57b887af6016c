import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import type { CapabilityClass } from "../../fixtures/capability-classes.ts";
import { startGateway, tempId, type TestGateway } from "../../fixtures/gateway.ts";
import { faults, type Fault } from "../../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "../../replay/capabilities.ts";
import { newPhone, type Phone } from "../../replay/phone.ts";
import { expectedOf, type CallFault, type Deed, type Expected } from "./oracle.ts";
import { phoneProgram } from "./program.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream(storeOptions);
  gateway = await startGateway({ queues: "postgres", upstreams: capabilities(upstream.url) });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

const faultOf: Record<CallFault, Fault> = {
  "422": faults.status(422),
  "429": faults.status(429),
  "500": faults.status(500),
  "500 after effect": faults.status(500, { effect: true }),
  "lose request": faults.loseRequest(),
  "lose reply": faults.loseReply(),
};

test("random programs of phones end, under random faults, exactly as the contract says", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(phoneProgram, { minLength: 1, maxLength: 4 }), async (programs) => {
      const actors = programs.map((program) => queue(newPhone(gateway), program));
      await Promise.all(actors.map(async ({ phone }) => void (await phone.send({ wait: 0 }))));
      for (const actor of actors) {
        const results = await actor.phone.outcomesWhenOver();
        const expected = expectedOf(actor.program);
        expect(results).toEqual(expected.map(({ line }) => line));
        judgeEffects(actor, expected);
        await judgeRecords(actor, expected);
      }
    }),
    // An interrupted run keeps what it has found so far, and is no failure by itself.
    { numRuns: 20, interruptAfterTimeLimit: 20_000, markInterruptAsFailure: false },
  );
}, 120_000);

interface Actor {
  phone: Phone & { outcomesWhenOver: () => Promise<string[]> };
  program: Deed[];
  /** By deed: the record's name in the phone's data. */
  records: { tempId: string; entity: CapabilityClass; born: string }[];
}

/** Queues the whole program, and lays its faults. */
function queue(phone: Phone, program: Deed[]): Actor {
  const records: Actor["records"] = [];
  program.forEach((deed, n) => {
    const own =
      deed.op === "create"
        ? { tempId: tempId(), entity: deed.entity, born: `${phone.clientId}/${n}` }
        : records[deed.record]!;
    if (deed.op === "create") records.push(own);
    const other = deed.op === "delete" || deed.refersTo === undefined ? undefined : records[deed.refersTo];
    const data = {
      ...(deed.op === "create" && { born: own.born }),
      by: markOf(phone, n),
      [`n${n}`]: n,
      ...(other && { [`ref${n}`]: other.tempId }),
    };
    const { entity, tempId: recordId } = own;
    phone.add({ op: deed.op, entity, recordId, ...(deed.op !== "delete" && { data }) });
    upstream.script(isCallOf(phone, deed, n, own), ...deed.faults.map((name) => faultOf[name]));
  });
  return {
    phone: Object.assign(phone, { outcomesWhenOver: async () => await overOf(phone) }),
    program,
    records,
  };
}

const markOf = ({ clientId }: Phone, n: number): string => `${clientId}#${n}.`;

function isCallOf(
  phone: Phone,
  deed: Deed,
  n: number,
  own: Actor["records"][number],
): (request: RecordedRequest) => boolean {
  if (deed.op !== "delete") {
    const mark = markOf(phone, n);
    return ({ method, body }) => method !== "GET" && body.includes(mark);
  }
  return ({ method, path }) =>
    method === "DELETE" && path === `/${own.entity}/${encodeURIComponent(idOf(own) ?? "")}`;
}

/** Which record at the upstream this is, once it has been made. */
function idOf({ entity, born }: Actor["records"][number]): string | undefined {
  return upstream.effects.find(({ op, collection, record }) => {
    return op === "create" && collection === entity && record?.includes(`"${born}"`);
  })?.id;
}

/** What has become of each mutation, once nothing more can happen by itself. */
async function overOf(phone: Phone): Promise<string[]> {
  const lines = async () =>
    (await phone.outcomes()).map(({ status, blockedBy }) =>
      status === "pending" && blockedBy !== null && blockedBy !== undefined ? "held" : status,
    );
  await expect.poll(async () => (await lines()).includes("pending"), { timeout: 30_000 }).toBe(false);
  return await lines();
}

/** What may be sent again is the same again; everything else takes effect once, and all of it in order. */
function judgeEffects({ phone, program, records }: Actor, expected: Expected[]): void {
  // A record's deletes look alike at the upstream: an effect is that of the one that should have one, of several.
  const deletes = (record: number): number[] =>
    program.flatMap((deed, n) => (deed.op === "delete" && deed.record === record ? [n] : []));
  const theDelete = (record: number): number | undefined =>
    deletes(record).find((n) => expected[n]!.hasEffect) ?? deletes(record)[0];
  const seen = upstream.effects.flatMap(({ op, collection, id, request }) => {
    const n = program.findIndex((deed, index) =>
      deed.op === "delete"
        ? op === "delete" && isOf(records[deed.record]!, collection, id) && index === theDelete(deed.record)
        : op !== "delete" && request.body.includes(markOf(phone, index)),
    );
    return n === -1 ? [] : [n];
  });
  const distinct = seen.filter((n, index) => seen[index - 1] !== n);
  const effective = expected.flatMap(({ hasEffect }, n) => (hasEffect ? [n] : []));
  expect(distinct).toEqual(effective);
  const repeated = seen.filter((n, index) => seen[index - 1] === n);
  for (const n of repeated) {
    const deed = program[n]!;
    const entity = deed.op === "create" ? deed.entity : records[deed.record]?.entity;
    expect(["upsert create", "upsert update", "client-id update"]).toContain(`${entity} ${deed.op}`);
  }
}

const isOf = (own: Actor["records"][number], collection: string, id: string): boolean =>
  collection === own.entity && id === idOf(own);

/** The gateway's copy of each record without open questions is what the upstream has. */
async function judgeRecords({ phone, records }: Actor, expected: Expected[]): Promise<void> {
  if (expected.some(({ line }) => line === "parked")) return;
  const held = new Map<string, unknown>();
  for (let query = `clientId=${phone.clientId}`, more = true; more;) {
    const { body } = await phone.api.get(`/v1/changes?${query}`);
    for (const { type, entity, id, data } of body.changes) {
      if (type === "upsert") held.set(`${entity}/${id}`, data);
      if (type === "delete") held.delete(`${entity}/${id}`);
    }
    query = `clientId=${phone.clientId}&cursor=${encodeURIComponent(body.cursor)}`;
    ({ more } = body);
  }
  for (const record of records) {
    const id = idOf(record);
    const there = upstream.records(record.entity).find((text) => text.includes(`"${record.born}"`));
    expect(held.get(`${record.entity}/${id}`)).toEqual(there === undefined ? undefined : JSON.parse(there));
  }
}
