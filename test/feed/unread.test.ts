import { afterAll, beforeAll, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import type { QueuedMutation } from "../fixtures/outbox.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { bodyHas } from "../replay/parked.ts";
import { linesOf, newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";

const base = "/ops/v1/tenants/ours/unread-outcomes";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    queues: "postgres",
    upstreams: crm(upstream.url),
    otherUpstreams: crm(upstream.url),
  });
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.stop();
});

interface Unread {
  id: string;
  clientId: string;
  userId: string;
  status: string;
  problem?: { type: string };
}

async function unread(): Promise<Unread[]> {
  return (await gateway.asOps("viewer").get(`${base}?limit=500`)).body.outcomes;
}

const unreadIds = async (): Promise<string[]> => (await unread()).map(({ id }) => id);

/** A phone whose create the upstream refuses while the app sleeps: nobody has read of it. */
async function refused(
  status = 422,
  user: TestUser = {},
): Promise<{ phone: Phone; id: string; mutation: QueuedMutation }> {
  const phone = newPhone(gateway, user);
  const marker = tempId();
  upstream.script(bodyHas(marker), faults.status(status));
  const mutation = phone.add({ op: "create", recordId: tempId(), data: { marker } });
  const { id } = mutation;
  await phone.send({ wait: 0 });
  if (user.iss === undefined) await expect.poll(unreadIds).toContain(id);
  return { phone, id, mutation };
}

const gone = async (id: string): Promise<void> => await expect.poll(unreadIds).not.toContain(id);

const pageOf = async ({ api, clientId }: Phone, cursor = "") =>
  (await api.get(`/v1/changes?clientId=${clientId}&limit=500${cursor}`)).body;

test.each([
  [422, "rejected", "upstream-rejected"],
  [409, "conflict", "upstream-conflict"],
])(
  "what ended with a %i is listed, with whose it is, until its client comes with a cursor from after it",
  async (answer, status, problem) => {
    const { phone, id } = await refused(answer, { sub: "siri" });
    const { phone: another, id: anothersId } = await refused();
    const type = `urn:tidegate:problem:${problem}`;
    const found = (await unread()).find((one) => one.id === id);
    expect(found).toMatchObject({ clientId: phone.clientId, userId: "siri", status, problem: { type } });

    const page = await pageOf(phone);
    expect(page.changes.at(-1)).toMatchObject({ type: "outcome", result: { id, status } });
    // That it was sent does not say that it came.
    await pageOf(another, `&cursor=${(await pageOf(another)).cursor}`);
    await gone(anothersId);
    expect(await unreadIds()).toContain(id);

    await pageOf(phone, `&cursor=${page.cursor}`);
    await gone(id);
  },
);

test.each(["after a snapshot", "from a beginning that is pruned"])(
  "who goes on %s, which did not tell it, has not read it until it asks",
  async (how) => {
    const [{ phone, id }, other] = [await refused(), await refused()];
    const { api, clientId } = phone;
    if (how === "after a snapshot") {
      const { cursor } = (await api.get(`/v1/snapshot?clientId=${clientId}`)).body;
      const page = await pageOf(phone, `&cursor=${cursor}`);
      expect(page.changes).toEqual([]);
      await pageOf(phone, `&cursor=${page.cursor}`);
    } else {
      await rowsOf(
        gateway.database,
        `insert into feed_horizon (tenant_id, position) select tenant_id, position from feed_head
         on conflict (tenant_id) do update set position = excluded.position`,
      );
      await pageOf(phone, `&cursor=${(await pageOf(phone)).cursor}`);
    }
    // What was noted after it is written down with it, or later.
    await other.phone.outcomes();
    await gone(other.id);
    expect(await unreadIds()).toContain(id);

    await phone.outcomes();
    await gone(id);
  },
);

test("that the upload's own answer told it is no proof that the answer arrived", async () => {
  const phone = newPhone(gateway);
  const marker = tempId();
  upstream.script(bodyHas(marker), faults.status(422));
  const { id } = phone.add({ op: "create", recordId: tempId(), data: { marker } });
  const batch = phone.batch();
  expect(linesOf((await phone.api.upload(batch)).body.results)).toEqual(["rejected upstream-rejected"]);
  // What was noted after it is written down with it, or later.
  const other = await refused();
  await other.phone.outcomes();
  await gone(other.id);
  expect(await unreadIds()).toContain(id);
  await phone.api.upload(batch);
  await gone(id);
});

test("who asks for it by name, or sends the batch again, has read it", async () => {
  const [byList, byId, byUpload] = [await refused(), await refused(), await refused()];
  await byList.phone.outcomes();
  await byId.phone.api.get(`/v1/mutations/${byId.id}`);
  const again = { clientId: byUpload.phone.clientId, previousSeq: 0, mutations: [byUpload.mutation] };
  expect((await byUpload.phone.api.upload(again)).body.results).toMatchObject([{ status: "rejected" }]);
  for (const { id } of [byList, byId, byUpload]) await gone(id);
});

test("nothing else is listed: not what was applied, is parked, or was refused in the upload's own answer", async () => {
  const phone = newPhone(gateway);
  upstream.script({ method: "POST" }, faults.status(418));
  phone.add({ op: "create", recordId: tempId(), data: {} });
  phone.add({ op: "create", recordId: tempId(), data: {} });
  phone.add({ op: "create", entity: "nothing", recordId: tempId(), data: {} });
  const lines = linesOf(await phone.replay());
  expect(lines).toEqual(["parked upstream-unexpected", "applied", "rejected unknown-entity"]);
  const { id } = await refused();
  const listed = await unread();
  expect(listed.filter(({ clientId }) => clientId === phone.clientId)).toEqual([]);
  expect(listed.map((one) => one.id)).toContain(id);
});

test("an operator who has told the user ends the alarm, by name and with the reason, once", async () => {
  const { id } = await refused();
  const body = { reason: "called her" };
  const seen = `${base}/${id}/seen`;
  expect((await gateway.asOps("viewer").post(seen, body)).status).toBe(403);
  const elsewhere = seen.replace("/ours/", "/other/");
  expect((await gateway.asOps().post(elsewhere, body)).status).toBe(404);
  expect(await unreadIds()).toContain(id);

  expect(await gateway.asOps().post(seen, body)).toMatchObject({
    status: 200,
    body: { seenBy: "operator-siri" },
  });
  expect(await unreadIds()).not.toContain(id);
  expect((await gateway.asOps().post(seen, body)).status).toBe(404);
  const kept = "select seen_by, seen_reason from unread_outcome where mutation_id = $1";
  expect(await rowsOf(gateway.database, kept, [id])).toEqual([
    { seen_by: "operator-siri", seen_reason: "called her" },
  ]);
});

test("the list has pages, of one tenant, and the metrics tell how many there are and since when", async () => {
  await refused();
  await refused();
  await refused(422, { iss: "other" });
  const othersAre = async () =>
    (await gateway.asOps().get(base.replace("/ours/", "/other/"))).body.outcomes.length as number;
  await expect.poll(othersAre).toBe(1);
  const all = await unreadIds();
  const ops = gateway.asOps();
  const first = (await ops.get(`${base}?limit=1`)).body;
  const second = (await ops.get(`${base}?limit=500&after=${first.next}`)).body;
  const ids = [...first.outcomes, ...second.outcomes].map(({ id }: Unread) => id);
  expect(ids).toEqual(all);
  const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
  expect(metrics).toContain(`tidegate_unread_outcomes{tenant="ours"} ${all.length}`);
  expect(metrics).toContain('tidegate_unread_outcomes{tenant="other"} 1');
  expect(metrics).toMatch(/tidegate_oldest_unread_outcome_seconds\{tenant="ours"\} [\d.]+/);
});
