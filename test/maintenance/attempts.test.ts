import { afterAll, beforeAll, expect, test } from "vitest";

import { attemptPruner } from "../../src/maintenance/pruners.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newOperator } from "../replay/operator.ts";
import { quiet, withParked } from "../replay/parked.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { attemptsOf, rowsOf } from "../replay/rows.ts";
import { ageBy, dayMs, makeDue, roundsIn, type Rounds } from "./rounds.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let rounds: Rounds;
beforeAll(async () => {
  upstream = await startScriptedUpstream({ etags: true });
  gateway = await startGateway({ upstreams: crm(upstream.url, { upstream: quiet }) });
  rounds = roundsIn(gateway.database);
});
afterAll(async () => {
  await rounds?.[Symbol.asyncDispose]();
  await gateway?.close();
  await upstream?.stop();
});

const after180Days = attemptPruner({ keepMs: 180 * dayMs, rowsMax: 2 });
const fileOf = async (id: string) =>
  (await gateway.asOps("viewer").get(`/ops/v1/tenants/ours/mutations/${id}`)).body;
const dispositionsOf = async (id: string) =>
  (await attemptsOf(gateway.database, id)).map(({ disposition }) => disposition);

/** A create that took two attempts. */
async function sendRetried(): Promise<string> {
  const phone = newPhone(gateway);
  upstream.script({ method: "POST" }, faults.status(503));
  const { id } = phone.add({ op: "create", recordId: tempId() });
  expect(linesOf(await phone.replay({ wait: 25 }))).toEqual(["applied"]);
  return id;
}

test("attempts go when their time after the outcome is over, and not before; the file says so", async () => {
  const old = await sendRetried();
  await ageBy(gateway.database, 179);
  await rounds.run(after180Days);
  expect(await dispositionsOf(old)).toEqual(["unclear", "applied"]);
  expect(Date.parse((await fileOf(old)).attemptsPrunedUntil)).toBeLessThan(Date.now() - 179 * dayMs);

  const young = await sendRetried();
  await ageBy(gateway.database, 2);
  expect(await rounds.run(after180Days)).toEqual({ attempt: 2 });
  expect(await dispositionsOf(old)).toEqual([]);
  expect(await dispositionsOf(young)).toEqual(["unclear", "applied"]);
  const { status, settledAt, attempts, attemptsPrunedUntil } = await fileOf(old);
  expect([status, attempts]).toEqual(["applied", []]);
  expect(Date.parse(settledAt)).toBeLessThan(Date.parse(attemptsPrunedUntil));
});

test("a worker does so by itself", async () => {
  const id = await sendRetried();
  await ageBy(gateway.database, 181);
  await makeDue(gateway.database, "attempts");
  const worker = await gateway.another("worker");
  await expect.poll(() => dispositionsOf(id), { timeout: 20_000 }).toEqual([]);
  await worker.close();
});

test("what was tried stays while the mutation is open, and as long after the outcome that it had late", async () => {
  const phone = newPhone(gateway);
  const { parked } = await withParked(upstream, phone);
  await ageBy(gateway.database, 1_000);
  await rounds.run(after180Days);
  expect(await dispositionsOf(parked.id)).toEqual(["park"]);
  await newOperator(gateway).command(parked.id, { command: "reject", reason: "registered on paper" });
  await phone.settled();
  await rounds.run(after180Days);
  expect(await dispositionsOf(parked.id)).toEqual(["park"]);
  await ageBy(gateway.database, 181);
  await rounds.run(after180Days);
  expect(await dispositionsOf(parked.id)).toEqual([]);
  expect((await fileOf(parked.id)).commands).toMatchObject([{ reason: "registered on paper" }]);
});

test("what was tried at a shadow stays while it is open there, whatever the primary's outcome, and goes as a whole", async () => {
  const id = await sendRetried();
  const addTry = (daysAgo: number) =>
    rowsOf(
      gateway.database,
      `insert into attempt (tenant_id, mutation_id, upstream_id, begun_at, epoch, duration_ms, disposition, sent, worker, request_id)
       values ('ours', $1, 'next', now() - $2 * interval '1 day', 1, 0, 'park', true, '', '')`,
      [id, daysAgo],
    );
  await addTry(200);
  await rowsOf(
    gateway.database,
    `insert into delivery (tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key, possibly_sent, attempts)
     values ('ours', 'next', $1, gen_random_uuid(), 7, 'parked', '', false, 1)`,
    [id],
  );
  await ageBy(gateway.database, 200);
  expect(await rounds.run(after180Days)).toEqual({ attempt: 2 });
  expect(await dispositionsOf(id)).toEqual(["park"]);
  await rowsOf(gateway.database, "delete from delivery where mutation_id = $1", [id]);
  await addTry(1);
  expect(await rounds.run(after180Days)).toEqual({ attempt: 0 });
  await ageBy(gateway.database, 180);
  expect(await rounds.run(after180Days)).toEqual({ attempt: 2 });
});

test("to keep things for longer brings nothing back and takes nothing more", async () => {
  await rounds.run(attemptPruner({ keepMs: 10 * dayMs, rowsMax: 100 }));
  const id = await sendRetried();
  await ageBy(gateway.database, 20);
  expect(await rounds.run(after180Days)).toEqual({ attempt: 0 });
  const { attempts, attemptsPrunedUntil } = await fileOf(id);
  expect(attempts).toHaveLength(2);
  expect(Date.parse(attemptsPrunedUntil)).toBeGreaterThan(Date.now() - 11 * dayMs);
});
