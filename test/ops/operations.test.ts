import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";

const ours = "/ops/v1/tenants/ours";
const secretText = "the peer's own words";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url), otherUpstreams: crm(upstream.url) });
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.stop();
});

/** A phone with parked creates, and one more that is held behind the last. */
async function withParked(count: number, user: { iss?: string } = {}) {
  const phone = newPhone(gateway, user);
  const mentor = tempId();
  const parked = Array.from({ length: count }, (_, index) => {
    upstream.script(
      { method: "POST" },
      faults.status(418, { body: `{"error":"no","echo":"${secretText}"}` }),
    );
    const recordId = index === count - 1 ? mentor : tempId();
    return phone.add({ op: "create", entity: "mentor", recordId, data: { note: secretText } });
  });
  const held = phone.add({ op: "create", recordId: tempId(), data: { mentor, note: secretText } });
  await phone.replay({ wait: 25 });
  return { phone, parked, held };
}

test("the list shows what waits for a person, longest first and in pages, and no payload", async () => {
  const { phone, parked } = await withParked(5);
  const viewer = gateway.asOps("viewer");
  const seen: { id: string; held: number }[] = [];
  let pages = 0;
  for (let after = ""; ; pages++) {
    const { status, body, text } = await viewer.get(`${ours}/parked?limit=2${after}`);
    expect(status).toBe(200);
    expect(text).not.toContain(secretText);
    seen.push(...body.mutations);
    if (body.next === undefined) break;
    after = `&after=${body.next}`;
  }
  expect(pages).toBeGreaterThanOrEqual(2);
  const mine = seen.filter(({ id }) => parked.some((mutation) => mutation.id === id));
  expect(mine).toMatchObject(
    parked.map(({ id, seq }, index) => ({
      id,
      seq,
      clientId: phone.clientId,
      entity: "mentor",
      op: "create",
      state: "parked",
      problem: { type: "urn:tidegate:problem:upstream-unexpected" },
      possiblySent: false,
      attempts: 1,
      held: index === 4 ? 1 : 0,
    })),
  );
});

test("a mutation's file has where it stands, its attempts with what was answered, and what was decided by whom", async () => {
  const { parked, held } = await withParked(1);
  const id = parked[0]?.id ?? "";
  const operator = gateway.asOps("operator");
  const { body: before, text } = await operator.get(`${ours}/mutations/${id.toUpperCase()}`);
  expect(text).not.toContain(secretText);
  expect(before).toMatchObject({
    id,
    status: "parked",
    problem: { type: "urn:tidegate:problem:upstream-unexpected" },
    delivery: { state: "parked", op: "create", possiblySent: false, blockedBy: null },
    attempts: [{ disposition: "park", sent: true, status: 418, answer: '{"error":"no","echo":"…"}' }],
    commands: [],
  });
  const { body: behind } = await operator.get(`${ours}/mutations/${held.id}`);
  expect(behind).toMatchObject({
    status: "pending",
    delivery: { state: "held", blockedBy: id },
    attempts: [],
  });
  const order = { command: "reject", reason: "registered twice" };
  const given = await operator.post(`${ours}/mutations/${id}/commands`, order);
  expect(given).toMatchObject({ status: 202, body: { commandId: expect.any(String) } });
  await expect.poll(async () => (await operator.get(`${ours}/mutations/${id}`)).body.status).toBe("rejected");
  const { body: after } = await operator.get(`${ours}/mutations/${id}`);
  expect(after.delivery).toBeUndefined();
  expect(after.commands).toMatchObject([
    { id: given.body.commandId, ...order, givenBy: "operator-siri", result: "rejected", recordId: null },
  ]);
  expect(Date.parse(after.commands[0].doneAt)).toBeGreaterThanOrEqual(Date.parse(after.commands[0].givenAt));
});

test("a lane is made due by name; who did it, and why, is kept", async () => {
  const { phone } = await withParked(1);
  const now = `${ours}/lanes/${phone.clientId}/now`;
  expect(await gateway.asOps().post(now, { reason: "the upstream is back" })).toMatchObject({ status: 202 });
  const rows = await rowsOf(
    gateway.database,
    "select command, given_by, reason, result from command where lane_id = $1",
    [phone.clientId],
  );
  expect(rows).toEqual([
    { command: "now", given_by: "operator-siri", reason: "the upstream is back", result: "due" },
  ]);
});

test("a viewer looks and decides nothing; without an operator's token nobody does either", async () => {
  const { phone, parked } = await withParked(1);
  const reads = [`${ours}/parked`, `${ours}/mutations/${parked[0]?.id}`];
  const acts: [string, object][] = [
    [`${ours}/mutations/${parked[0]?.id}/commands`, { command: "retry" }],
    [`${ours}/lanes/${phone.clientId}/now`, {}],
  ];
  for (const path of reads) {
    expect((await gateway.asOps("viewer").get(path)).status).toBe(200);
    expect((await gateway.asOps("approver").get(path)).status).toBe(200);
    expect((await gateway.as().get(path)).status).toBe(401);
  }
  for (const [path, body] of acts) {
    const refused = await gateway.asOps("viewer").post(path, body);
    expect(refused).toMatchObject({ status: 403, body: { type: "urn:tidegate:problem:forbidden" } });
    expect((await gateway.as().post(path, body)).status).toBe(401);
  }
  const given = await rowsOf(gateway.database, "select 1 from command where lane_id = $1", [phone.clientId]);
  expect(given).toEqual([]);
});

test("a tenant, mutation or lane that is not there is 404, and another tenant's is not there", async () => {
  const { phone, parked } = await withParked(1, { iss: "other" });
  const operator = gateway.asOps();
  const [id, laneId] = [parked[0]?.id ?? "", phone.clientId];
  expect((await operator.get(`/ops/v1/tenants/other/mutations/${id}`)).status).toBe(200);
  for (const tenant of ["ours", "nobody", "constructor"]) {
    const base = `/ops/v1/tenants/${tenant}`;
    expect((await operator.get(`${base}/mutations/${id}`)).status).toBe(404);
    expect((await operator.post(`${base}/mutations/${id}/commands`, { command: "retry" })).status).toBe(404);
    expect((await operator.post(`${base}/lanes/${laneId}/now`, {})).status).toBe(404);
  }
  expect((await operator.get("/ops/v1/tenants/nobody/parked")).status).toBe(404);
  const { body } = await operator.get(`${ours}/parked?limit=500`);
  expect((body.mutations as { id: string }[]).map((mutation) => mutation.id)).not.toContain(id);
});

test.each([
  [{ command: "skip" }],
  [{ command: "now" }],
  [{ command: "retry", recordId: "7" }],
  [{ command: "reject", reason: "" }],
  [{ command: "reject", reason: "a\u0000b" }],
  [{ command: "retry", force: true }],
  [{}],
])("an order that makes no sense is refused: %j", async (order) => {
  const { parked } = await withParked(1);
  const answer = await gateway.asOps().post(`${ours}/mutations/${parked[0]?.id}/commands`, order);
  expect(answer).toMatchObject({ status: 400, body: { type: "urn:tidegate:problem:invalid-request" } });
});

test("names that no database takes are refused like any other", async () => {
  const operator = gateway.asOps();
  expect((await operator.post(`${ours}/lanes/a%00b/now`, {})).status).toBe(400);
  expect((await operator.get(`${ours}/mutations/${randomUUID()}x`)).status).toBe(400);
  expect((await operator.get(`${ours}/parked?after=bm9uc2Vuc2U`)).status).toBe(400);
});
