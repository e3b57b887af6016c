import { describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { added, startPair } from "../shadows/pair.ts";
import { newOperator } from "./operator.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";

const upstream = { circuit: { failures: 10_000, cooldownMs: 50 } };
const upcasting = (data: string) => ({
  schema: 2,
  schemaDefault: 1,
  upcast: [{ from: 1, to: 2, name: "nothing new", data }],
});
const ways = {
  "a mapping": { broken: { toUpstream: '$error("no")' }, mended: { toUpstream: "$merge([$])" } },
  "an upcaster": { broken: upcasting('$error("no")'), mended: upcasting("$") },
  "an upcaster without an object": { broken: upcasting('"text"'), mended: upcasting("$") },
};
const opened = "a mapping takes nobody's data";
const users = ["1", "2", "3", "4", "5", "6"];

/** Everybody creates a record and changes it, and the breaker opens several times. */
async function keptBack(gateway: TestGateway): Promise<Phone[]> {
  const phones = users.map((sub) => newPhone(gateway, { sub }));
  for (const [index, phone] of phones.entries()) {
    const recordId = tempId();
    phone.add({ op: "create", recordId, data: { of: users[index], n: 1 } });
    phone.add({ op: "update", recordId, data: { n: 2 } });
    await phone.send({ wait: 0 });
  }
  const timesOpened = () => gateway.log.filter((line) => line.includes(opened)).length;
  await expect.poll(timesOpened, { timeout: 20_000 }).toBeGreaterThan(3);
  return phones;
}

/** The first mutations of those phones that wait for a person. The others wait for the mapping. */
async function parkedOf(phones: Phone[]): Promise<string[]> {
  const parked: string[] = [];
  for (const phone of phones) {
    const [first, second] = await phone.outcomes();
    expect(second?.status).toBe("pending");
    if (first?.status !== "pending") parked.push(first?.id ?? "");
  }
  return parked;
}

describe.each(Object.entries(ways))("%s that takes nobody's data", { timeout: 60_000 }, (_, way) => {
  test("parks two mutations at most, and keeps the rest until it is mended: in order, and by itself", async () => {
    await using system = await startScriptedUpstream({ etags: true });
    await using left = new AsyncDisposableStack();
    const database = await createTestDatabase();
    left.defer(() => database.drop());
    const start = (entity: object): Promise<TestGateway> =>
      startGateway({ queues: "postgres", database, upstreams: crm(system.url, { upstream, entity }) });

    const broken = await start(way.broken);
    const phones = await keptBack(broken);
    const parked = await parkedOf(phones);
    const metrics = await (await fetch(`${broken.url}/metrics`)).text();
    expect(metrics).toContain('tidegate_upstream_breaker_open{tenant="ours",upstream="crm"} 1');
    expect(metrics).toMatch(/tidegate_mutations_retrying\{tenant="ours",upstream="crm"\} [1-4]\n/);
    expect(parked).toHaveLength(2);
    expect(system.requests).toEqual([]);
    await broken.close();

    await using mended = await start(way.mended);
    for (const id of parked) await newOperator(mended).command(id, { command: "retry" });
    for (const [index, { clientId }] of phones.entries()) {
      const phone = newPhone(mended, { sub: users[index] ?? "" }, clientId);
      expect(linesOf(await phone.settled())).toEqual(["applied", "applied"]);
    }
    const sent = system.requests.map(({ body }) => JSON.parse(body.toString()) as { of?: string; n: number });
    expect(new Set(sent.flatMap(({ of }) => of ?? []))).toEqual(new Set(users));
    expect(sent).toHaveLength(2 * users.length);
  });
});

test(
  "a shadow's mapping parks two changes there at most, and the primary goes on",
  { timeout: 60_000 },
  async () => {
    const entity = { toUpstream: '$error("no")' };
    const shadow = { circuit: { failures: 10_000, cooldownMs: 50 } };
    await using pair = await startPair("postgres", { entity, shadow });
    const { gateway } = pair;
    await added(gateway);
    for (const phone of await keptBack(gateway))
      expect(linesOf(await phone.settled())).toEqual(["applied", "applied"]);
    const { body } = await gateway.asOps().get("/ops/v1/tenants/ours/shadows/next/parked");
    expect(body.changes).toHaveLength(2);
    expect(pair.shadow.effects).toEqual([]);
  },
);

test(
  "a mapping that one user's data does not fit parks that, and nobody else waits",
  { timeout: 60_000 },
  async () => {
    await using system = await startScriptedUpstream({ etags: true });
    const entity = { toUpstream: '$exists(wrong) ? $error("no") : $' };
    const upstreams = crm(system.url, { upstream, entity });
    await using gateway = await startGateway({ queues: "postgres", upstreams });
    for (let n = 0; n < 4; n++) {
      const phone = newPhone(gateway, { sub: "kari" });
      phone.add({ op: "create", recordId: tempId(), data: { wrong: n } });
      expect(linesOf(await phone.replay())).toEqual(["parked upstream-unexpected"]);
    }
    const other = newPhone(gateway, { sub: "ola" });
    other.add({ op: "create", recordId: tempId(), data: { n: 1 } });
    expect(linesOf(await other.replay())).toEqual(["applied"]);
    expect(gateway.log.join()).not.toContain(opened);
  },
);
