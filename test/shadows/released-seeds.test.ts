import { expect, test } from "vitest";

import { tempId, type TestGateway } from "../fixtures/gateway.ts";
import { spread } from "../fixtures/redis.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import type { CommandBody } from "../replay/operator.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater, type LaterPair } from "./later.ts";
import { newShadowOperator } from "./open.ts";
import { added, bothHold, caughtUp } from "./pair.ts";

interface Open {
  mutation_id: string;
  state: string;
  problem: { code: string } | null;
}

interface Change {
  id: string;
  kind: string;
  entity: string;
  state: string;
  held: number;
}

/** Two mentors who name each other, and an activity of both. */
async function live({ gateway }: LaterPair) {
  const phone = newPhone(gateway);
  const [first, second, activity] = [tempId(), tempId(), tempId()];
  const one = { op: "create" as const, entity: "mentor" };
  phone.add({ ...one, recordId: first, data: { name: "first", a: 1, b: 1 } });
  phone.add({ ...one, recordId: second, data: { name: "second", mentor: first } });
  phone.add({ op: "create", recordId: activity, data: { mentor: first, others: [first, second], n: 1 } });
  phone.add({ op: "update", entity: "mentor", recordId: first, data: { mentor: second } });
  await phone.replay();
  return { phone, first, second, activity };
}

const createsFirst = ({ method, path, body }: RecordedRequest): boolean =>
  method === "POST" && path === "/mentors" && body.toString().includes('"first"');

async function open({ gateway }: { gateway: TestGateway }): Promise<Open[]> {
  return await rowsOf(gateway.database, "select * from delivery where upstream_id = 'next'");
}

/** What is open, once what refers to a record that was left out at first is sent again. */
async function openButForReferences(later: TestGateway): Promise<unknown[]> {
  const rows = await open({ gateway: later });
  for (const { mutation_id: id, state, problem } of rows) {
    if (state === "parked" && problem?.code === "unknown-reference")
      await newShadowOperator(later).ask(id, { command: "retry" });
  }
  return rows;
}

/** What went wrong in a gateway, beside what it parked. */
function faultsIn({ log }: TestGateway): string[] {
  const bad = log.filter((line) => /"level":"(error|fatal)"/.test(line));
  return bad.filter((line) => !line.includes("a mutation was parked"));
}

const slow = { timeout: 120_000 };

test.each(
  spread<[command: CommandBody["command"], created: number]>([
    ["retry", 1],
    ["applied", 0],
    ["reject", 1],
  ]),
)(
  "on %s, a record that is parked while it is seeded, and the command %s",
  slow,
  async (queues, command, created) => {
    await using pair = await startLater(queues, {});
    const { gateway, shadow } = pair;
    const { phone, first, activity } = await live(pair);
    shadow.script(createsFirst, faults.status(418));
    const later = await pair.addShadow();
    await caughtUp(later);
    // Changed while it is parked: by the log, and in the record that is read again.
    phone.add({ op: "update", entity: "mentor", recordId: first, data: { a: 2, name: "first again" } });
    phone.add({ op: "update", recordId: activity, data: { n: 2 } });
    await phone.replay();
    await caughtUp(later);
    const api = later.asOps();
    const { body } = await api.get("/ops/v1/tenants/ours/shadows/next/parked");
    const changes = body.changes as Change[];
    expect(changes).toMatchObject([
      { kind: "seed", entity: "mentor", op: "create", state: "parked", clientId: null },
    ]);
    // The other mentor, the activity, what completes the first mentor, and what the phone did since.
    expect(changes[0]?.held).toBeGreaterThanOrEqual(3);
    if (command === "applied") shadow.seed("mentors", ['{"id":9000,"name":"first","a":1,"b":1}']);
    await newShadowOperator(later).command(changes[0]?.id ?? "", {
      command,
      ...(command === "applied" && { recordId: "9000" }),
    });
    await expect.poll(async () => await openButForReferences(later), { timeout: 30_000 }).toEqual([]);
    await caughtUp(later);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    const creates = shadow.effects.filter(
      ({ op, collection }) => op === "create" && collection === "mentors",
    );
    expect(creates).toHaveLength(1 + created);
    expect([...faultsIn(gateway), ...faultsIn(later)]).toEqual([]);
  },
);

test(
  "a seed whose first answer was lost does not hide what has changed before it was sent again",
  slow,
  async () => {
    await using pair = await startLater("postgres", {});
    const { gateway, shadow } = pair;
    const { phone, first } = await live(pair);
    const gate = Promise.withResolvers<void>();
    const lostLate: Fault = async ({ apply, socket }) => {
      apply();
      await gate.promise;
      socket.resetAndDestroy();
    };
    shadow.script(createsFirst, lostLate);
    const later = await pair.addShadow();
    await added(later);
    await shadow.received(createsFirst);
    phone.add({ op: "update", entity: "mentor", recordId: first, data: { b: 2 } });
    await phone.replay();
    gate.resolve();
    await caughtUp(later);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(await open(pair)).toEqual([]);
    expect([...faultsIn(gateway), ...faultsIn(later)]).toEqual([]);
  },
);
