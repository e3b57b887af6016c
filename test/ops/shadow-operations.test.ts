import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { newShadowOperator, openOf, released } from "../shadows/open.ts";
import { added, caughtUp, startPair, type Pair } from "../shadows/pair.ts";

const shadows = "/ops/v1/tenants/ours/shadows";
const next = `${shadows}/next`;
const secretText = "the peer's own words";

let pair: Pair;

beforeAll(async () => {
  pair = await startPair("postgres");
  await added(pair.gateway);
});
afterAll(async () => await pair?.[Symbol.asyncDispose]());

/** Creates that are parked in the shadow, and one more that is held there behind the last. */
async function withParked(count: number) {
  const { gateway, shadow } = pair;
  const phone = newPhone(gateway);
  const parked = Array.from({ length: count }, () =>
    phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: { note: secretText } }),
  );
  const held = phone.add({ op: "create", recordId: tempId(), data: { mentor: parked.at(-1)?.recordId } });
  const lift = shadow.always(
    ({ method, path }) => method === "POST" && path === "/mentors",
    faults.status(418, { body: `{"error":"no","echo":"${secretText}"}` }),
  );
  const results = await phone.replay();
  await caughtUp(gateway);
  lift();
  return { phone, parked, held, results };
}

test("the list shows what waits for a person in a shadow, in pages, with its record's names and no payload", async () => {
  const { phone, parked, held, results } = await withParked(5);
  const viewer = pair.gateway.asOps("viewer");
  const seen: { id: string }[] = [];
  let pages = 0;
  for (let after = ""; ; pages++) {
    const { status, body, text } = await viewer.get(`${next}/parked?limit=2${after}`);
    expect(status).toBe(200);
    expect(text).not.toContain(secretText);
    seen.push(...body.changes);
    if (body.next === undefined) break;
    after = `&after=${body.next}`;
  }
  expect(pages).toBeGreaterThanOrEqual(2);
  const factsOf = ({ recordId }: { recordId: string }, place: number) => ({
    clientId: phone.clientId,
    tempId: recordId,
    recordId: results[place]?.recordId,
    shadowRecordId: null,
    kind: "change",
    op: "create",
    possiblySent: false,
  });
  const mine = parked.map(({ id }) => seen.find((change) => change.id === id));
  expect(mine).toMatchObject(
    parked.map((mutation, index) => ({
      ...factsOf(mutation, index),
      entity: "mentor",
      state: "parked",
      blockedBy: null,
      problem: { type: "urn:tidegate:problem:upstream-unexpected" },
      attempts: 1,
      held: index === 4 ? 1 : 0,
    })),
  );
  expect(seen.map(({ id }) => id)).not.toContain(held.id);
  const behind = await viewer.get(`${next}/parked?heldBehind=${parked[4]?.id.toUpperCase()}`);
  expect(behind.body).toEqual({ changes: [expect.objectContaining({ id: held.id })] });
  expect(behind.body.changes).toMatchObject([
    { ...factsOf(held, 5), entity: "activity", state: "held", blockedBy: parked[4]?.id, attempts: 0 },
  ]);
  // The primary's list is about the primary.
  const { body } = await viewer.get("/ops/v1/tenants/ours/parked");
  expect(body.mutations).toEqual([]);
});

test("a change's file has where it stands in the shadow, what was answered there, and what was decided by whom", async () => {
  const { gateway } = pair;
  const { parked, held } = await withParked(1);
  const id = parked[0]?.id ?? "";
  const api = gateway.asOps();
  const before = await api.get(`${next}/changes/${id.toUpperCase()}`);
  expect(before.text).not.toContain(secretText);
  expect(before.body).toMatchObject({
    id,
    open: { id, state: "parked", op: "create", possiblySent: false },
    attempts: [
      { upstream: "next", disposition: "park", sent: true, status: 418, answer: '{"error":"no","echo":"…"}' },
    ],
    commands: [],
  });
  const order = { command: "retry", reason: "the mapping was corrected" };
  const given = await api.post(`${next}/changes/${id}/commands`, order);
  expect(given).toMatchObject({ status: 202, body: { commandId: expect.any(String) } });
  await released(gateway, [...parked, held]);
  const after = await api.get(`${next}/changes/${id}`);
  expect(after.body.open).toBeUndefined();
  expect(after.body.commands).toMatchObject([
    { id: given.body.commandId, ...order, givenBy: "operator-siri", result: "applied", recordId: null },
  ]);
  // The mutation itself has ended at the primary long ago, and nobody has decided anything about that.
  const { body } = await api.get(`/ops/v1/tenants/ours/mutations/${id}`);
  expect(body).toMatchObject({ status: "applied", commands: [] });
  expect(await newShadowOperator(gateway).ask(id, { command: "retry" })).toMatchObject({ status: 404 });
});

test("a shadow's lane is made due by name, and looked at", async () => {
  const { gateway, shadow } = pair;
  const phone = newPhone(gateway);
  shadow.script({ path: "/mentors" }, faults.status(429, { headers: { "retry-after": "3000" } }));
  const late = phone.add({ op: "create", entity: "mentor", recordId: tempId(), data: {} });
  await phone.replay();
  await expect.poll(async () => await openOf(gateway, [late]), { timeout: 20_000 }).toEqual(["retrying"]);
  const api = gateway.asOps();
  const { body } = await api.get(`${next}/changes/${late.id}`);
  await api.post(`/ops/v1/tenants/ours/lanes/${body.open.laneId}/now`, {});
  await released(gateway, [late]);
});

test("a viewer looks and decides nothing; without an operator's token nobody does either", async () => {
  const { gateway } = pair;
  const { parked } = await withParked(1);
  const file = `${next}/changes/${parked[0]?.id}`;
  for (const path of [`${next}/parked`, file]) {
    expect((await gateway.asOps("viewer").get(path)).status).toBe(200);
    expect((await gateway.asOps("approver").get(path)).status).toBe(200);
    expect((await gateway.as().get(path)).status).toBe(401);
  }
  const order = { command: "retry" };
  const refused = await gateway.asOps("viewer").post(`${file}/commands`, order);
  expect(refused).toMatchObject({ status: 403, body: { type: "urn:tidegate:problem:forbidden" } });
  expect((await gateway.as().post(`${file}/commands`, order)).status).toBe(401);
  const given = await rowsOf(gateway.database, "select 1 from command where mutation_id = $1", [
    parked[0]?.id,
  ]);
  expect(given).toEqual([]);
});

test("a shadow or change that is not there is 404; a primary is no shadow; no sense is 400", async () => {
  const { parked } = await withParked(1);
  const api = pair.gateway.asOps();
  const id = parked[0]?.id ?? "";
  const missing = [
    `${shadows}/crm`,
    `${shadows}/nobody`,
    `${shadows}/constructor`,
    "/ops/v1/tenants/other/shadows/next",
  ];
  for (const base of missing) {
    expect((await api.get(`${base}/parked`)).status).toBe(404);
    expect((await api.get(`${base}/changes/${id}`)).status).toBe(404);
    expect((await api.post(`${base}/changes/${id}/commands`, { command: "retry" })).status).toBe(404);
  }
  expect((await api.get(`${next}/changes/${randomUUID()}`)).status).toBe(404);
  const senseless = [{ command: "skip" }, { command: "retry", recordId: "7" }, { command: "applied" }, {}];
  for (const order of senseless)
    expect((await api.post(`${next}/changes/${id}/commands`, order)).status).toBe(400);
  expect((await api.get(`${next}/parked?after=bm9uc2Vuc2U`)).status).toBe(400);
  expect((await api.get(`${next}/parked?heldBehind=x`)).status).toBe(400);
});
