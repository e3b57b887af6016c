import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "./phone.ts";
import { deliveriesOf, rowsOf } from "./rows.ts";

const lookup = { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" };

function entity(create: object, rest: object = {}): object {
  return { path: "/records", id: "/id", create, ...rest };
}

/** Its searches see a new record late, or answer with everything. */
function slowCrm(baseUrl: string, indexLagMs: number): object {
  const keyTtlMs = 1;
  return {
    crm: {
      role: "primary",
      kind: "rest",
      baseUrl,
      timeoutMs: 300,
      indexLagMs,
      retry: { baseMs: 10, capMs: 50 },
      circuit: { failures: 10_000, cooldownMs: 20 },
      entities: {
        searched: entity({ class: "lookup" }, lookup),
        forgetful: entity({ class: "idempotency-key", keyTtlMs }, lookup),
        forgotten: entity({ class: "idempotency-key", keyTtlMs }),
        keyed: entity({ class: "idempotency-key" }),
        chosen: entity({ class: "client-id" }),
        "chosen-put": entity({ class: "client-id", method: "PUT" }),
        "chosen-if-none": entity({ class: "conditional", method: "PUT" }),
        "chosen-upsert": entity({ class: "upsert", method: "PUT" }),
        owned: {
          ...entity({ class: "client-id" }, { update: { class: "upsert" }, delete: { class: "upsert" } }),
          scopes: ["user:{/owner}"],
        },
      },
    },
  };
}

describe("whatever the queues are on", () => {
  const queues = "postgres";

  let lagging: ScriptedUpstream;
  let careless: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    lagging = await startScriptedUpstream({
      filterLag: true,
      clientIds: true,
      etags: true,
      idempotencyHeader: "Idempotency-Key",
    });
    careless = await startScriptedUpstream({ filters: "ignored" });
    careless.seed("records", [
      '{"id":"100","externalRef":"urn:uuid:00000000-0000-4000-8000-000000000000"}',
      '{"id":"101"}',
    ]);
    gateway = await startGateway({
      queues,
      upstreams: slowCrm(lagging.url, 60_000),
      otherUpstreams: slowCrm(careless.url, 100),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await lagging?.stop();
    await careless?.stop();
  });

  /** Uploads one create that meets the faults, and does not wait. */
  async function create(upstream: ScriptedUpstream, name: string, ...list: Fault[]) {
    const phone = newPhone(gateway, upstream === careless ? { iss: "other" } : {});
    const [marker, recordId] = [randomUUID(), tempId()];
    const isPost = ({ method, body }: RecordedRequest) =>
      method === "POST" && body.toString().includes(marker);
    upstream.script(isPost, ...list);
    phone.add({ op: "create", entity: name, recordId, data: { marker } });
    await phone.send({ wait: 0 });
    return {
      phone,
      marker,
      recordId,
      posts: () => upstream.requests.filter(isPost),
      made: () => upstream.records("records").filter((text) => text.includes(marker)),
      isPost,
    };
  }

  test("a record that the search does not show yet is not made twice, and adopted when it does", async () => {
    const { phone, recordId, posts, made } = await create(lagging, "searched", faults.loseReply());
    await lagging.received(isSearch(recordId));
    await vi.waitFor(
      async () =>
        expect(await deliveriesOf(gateway.database, phone.clientId)).toMatchObject([
          { attempts: 2, possibly_sent: true },
        ]),
      { timeout: 20_000 },
    );
    expect(posts()).toHaveLength(1);
    lagging.index();
    await due(gateway, phone.clientId);
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
    expect([posts().length, made().length]).toEqual([1, 1]);
  });

  test("several records that carry our reference are a person's to choose from", async () => {
    const { phone, marker, recordId, made } = await create(lagging, "searched", ({ apply, socket }) => {
      apply();
      lagging.seed("records", [JSON.stringify({ marker, externalRef: recordId })]);
      lagging.index();
      socket.resetAndDestroy();
    });
    expect(linesOf(await phone.settled())).toEqual(["parked upstream-unclear"]);
    expect(made()).toHaveLength(2);
  });

  test("strangers' records, with which a careless search answers, are never adopted", async () => {
    const lost = await create(careless, "searched", faults.loseRequest());
    const done = await create(careless, "searched", faults.loseReply());
    for (const { phone, made, marker } of [lost, done]) {
      const [result] = await phone.settled();
      expect(result).toMatchObject({ status: "applied" });
      expect(made().map((text) => JSON.parse(text) as object)).toMatchObject([
        { marker, id: Number(result?.recordId) },
      ]);
    }
    expect(lost.posts()).toHaveLength(2);
    expect(done.posts()).toHaveLength(1);
  });

  test.each([
    ["is too busy", faults.status(429)],
    ["gives no answer", faults.loseRequest()],
    ["refuses it", faults.status(400)],
  ])("a create whose answer names no record is not made again because the search %s", async (what, fault) => {
    const phone = newPhone(gateway, { iss: "other" });
    const [marker, recordId] = [randomUUID(), tempId()];
    careless.script(isSearch(recordId), fault);
    careless.script(({ body }) => body.toString().includes(marker), nameless);
    phone.add({ op: "create", entity: "searched", recordId, data: { marker } });
    const lines = linesOf(await phone.replay());
    expect(lines).toEqual([what === "refuses it" ? "parked upstream-unexpected" : "applied"]);
    expect(careless.records("records").filter((text) => text.includes(marker))).toHaveLength(1);
  });

  test("a repeated key that is answered with 409 is still being worked on: the same key again, later", async () => {
    const { phone, posts, made } = await create(
      lagging,
      "keyed",
      faults.hang({ effect: false }),
      faults.status(409),
      faults.status(409),
    );
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
    const keys = posts().map(({ headers }) => headers["idempotency-key"]);
    expect(keys).toHaveLength(4);
    expect(new Set(keys).size).toBe(1);
    expect(made()).toHaveLength(1);
  });

  test("a key that the upstream has forgotten by now is not used again: looked up, or a person is asked", async () => {
    const found = await create(careless, "forgetful", faults.loseReply());
    expect(linesOf(await found.phone.settled())).toEqual(["applied"]);
    const asked = await create(careless, "forgotten", faults.loseReply());
    expect(linesOf(await asked.phone.settled())).toEqual(["parked upstream-unclear"]);
    for (const { posts, made } of [found, asked]) expect([posts().length, made().length]).toEqual([1, 1]);
  });

  test("a change whose effect takes the record out of its author's sight is applied, though its reply is lost", async () => {
    const phone = newPhone(gateway, { sub: "kari" });
    const [given, deleted] = [randomUUID(), randomUUID()];
    lagging.seed(
      "records",
      [given, deleted].map((id) => JSON.stringify({ id, owner: "kari" })),
    );
    for (const method of ["PATCH", "DELETE"]) lagging.script({ method }, faults.loseReply());
    phone.add({ op: "update", entity: "owned", recordId: given, data: { owner: "ola" } });
    phone.add({ op: "delete", entity: "owned", recordId: deleted });
    phone.add({ op: "update", entity: "owned", recordId: given, data: { owner: "kari" } });
    expect(linesOf(await phone.replay())).toEqual(["applied", "applied", "rejected not-found"]);
  });

  const choosing = ["chosen", "chosen-put", "chosen-if-none", "chosen-upsert"];

  test.each(choosing)(
    "under the ID that the client chose our own record is success, and another's a conflict: %s",
    async (name) => {
      const phone = newPhone(gateway);
      const [mine, theirs] = [randomUUID(), randomUUID()];
      lagging.seed("records", [
        JSON.stringify({ id: mine, marker: mine, added: "by the system", note: null }),
        JSON.stringify({ id: theirs, marker: "another" }),
      ]);
      phone.add({
        op: "create",
        entity: name,
        recordId: mine,
        data: { marker: mine, note: null, gone: null },
      });
      phone.add({ op: "create", entity: name, recordId: theirs, data: { marker: theirs } });
      expect(linesOf(await phone.replay())).toEqual(["applied", "conflict upstream-conflict"]);
      expect(lagging.records("records").filter((text) => text.includes(theirs))).toEqual([
        expect.stringContaining('"another"'),
      ]);
    },
  );

  test.each(choosing)(
    "under the ID that the client chose a record is made once, though the reply is lost: %s",
    async (name) => {
      const phone = newPhone(gateway);
      const recordId = randomUUID();
      const isCreate = ({ method, body }: RecordedRequest) => method !== "GET" && body.includes(recordId);
      lagging.script(isCreate, faults.loseReply());
      phone.add({ op: "create", entity: name, recordId, data: { marker: recordId } });
      phone.add({ op: "update", entity: name, recordId, data: { note: "then" } });
      expect(linesOf(await phone.replay())).toEqual(["applied", "applied"]);
      expect(lagging.records("records").filter((text) => text.includes(recordId))).toHaveLength(1);
    },
  );
});

function isSearch(recordId: string): (request: RecordedRequest) => boolean {
  return ({ method, path }) => method === "GET" && path.includes(encodeURIComponent(recordId));
}

/** The effect takes place, and the answer does not say which record it made. */
const nameless: Fault = ({ apply, send }) => {
  apply();
  send({ status: 201 });
};

/** An operator's "now", as far as there is one. */
async function due({ database }: TestGateway, clientId: string): Promise<void> {
  await rowsOf(database, "update lane set due_at = now() - interval '1 minute' where client_id = $1", [
    clientId,
  ]);
}
