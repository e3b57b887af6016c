import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { newPhone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater } from "./later.ts";
import { newShadowOperator, openOf } from "./open.ts";
import { added, bothHold, caughtUp, withShadow, type PairConfig } from "./pair.ts";

const lookup = { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" };

/** Where a shadow can say whether a create has taken effect. */
const answerable: [string, object][] = [
  ["lookup", { ...lookup, create: { class: "lookup" } }],
  ["idempotency-key with lookup", { ...lookup, create: { class: "idempotency-key" } }],
  ["client-id", { reference: "/id", create: { class: "client-id" } }],
  ["upsert", { create: { class: "upsert", method: "PUT" } }],
];

const createsFirst = ({ method, body }: RecordedRequest): boolean =>
  (method === "POST" || method === "PUT") && body.toString().includes('"first"');

/**
 * Soon says that a call that shows no effect will not show one any more; yet a call outlasts the delete that comes
 * meanwhile.
 */
const soon = { timeoutMs: 3_000, processingMs: 0, indexLagMs: 0 };

/** A seed whose first call has no answer, and whose record is deleted in the primary before the call ends. */
async function deletedMeanwhile(queues: "postgres" | "redis", entity: object, takesEffect = true) {
  const pair = await startLater(queues, { entity, shadow: soon });
  const { gateway, shadow } = pair;
  const phone = newPhone(gateway);
  const recordId = tempId();
  phone.add({ op: "create", entity: "mentor", recordId, data: { name: "first" } });
  await phone.replay();
  const gate = Promise.withResolvers<void>();
  const lostLate: Fault = async ({ apply, socket }) => {
    if (takesEffect) apply();
    await gate.promise;
    socket.resetAndDestroy();
  };
  shadow.script(createsFirst, lostLate);
  const later = await pair.addShadow();
  await added(later);
  await shadow.received(createsFirst);
  const remove = phone.add({ op: "delete", entity: "mentor", recordId });
  expect((await phone.replay()).map(({ status }) => status)).toEqual(["applied"]);
  gate.resolve();
  await caughtUp(later);
  return { ...pair, later, remove };
}

const opaqueBut = (more: object): PairConfig => ({
  entity: { ...lookup, create: { class: "opaque", ...more } },
  shadow: soon,
});

interface Parked {
  id: string;
  kind: string;
  op: string;
  possiblySent: boolean;
  problem: { type: string };
}

describe("whatever the queues are on", { timeout: 120_000 }, () => {
  const queues = "postgres";

  test.each(answerable)(
    "a record that is deleted while its seed is unclear does not stay in the shadow (%s)",
    async (_, entity) => {
      await using pair = await deletedMeanwhile(queues, entity);
      const { shadow, gateway } = pair;
      expect(shadow.effects.map(({ op }) => op)).toEqual(["create", "delete"]);
      expect(shadow.records("mentors")).toEqual([]);
      expect(await rowsOf(gateway.database, "select * from delivery")).toEqual([]);
    },
  );

  test("one that was never made is not made then, and nobody is asked", async () => {
    await using pair = await deletedMeanwhile(queues, answerable[0]?.[1] ?? {}, false);
    expect(pair.shadow.effects).toEqual([]);
    expect(await rowsOf(pair.gateway.database, "select * from delivery")).toEqual([]);
  });

  describe.each([["opaque"], ["idempotency-key"]])("where the shadow can't say (%s)", (name) => {
    async function parkedSeed() {
      const pair = await deletedMeanwhile(queues, { create: { class: name } });
      const { body } = await pair.later.asOps().get("/ops/v1/tenants/ours/shadows/next/parked");
      const [seed] = body.changes as Parked[];
      expect(seed).toMatchObject({ kind: "seed", op: "create", possiblySent: true });
      expect(seed?.problem.type).toContain("upstream-unclear");
      const id = seed?.id ?? "";
      const operator = newShadowOperator(pair.later);
      const open = async (): Promise<unknown[]> =>
        await rowsOf(pair.gateway.database, "select * from delivery");
      return { ...pair, id, operator, open };
    }

    test("a person is asked; what is applied under its ID is removed by the delete that was held", async () => {
      await using pair = await parkedSeed();
      const { id, operator, shadow } = pair;
      await operator.command(id, { command: "retry" });
      expect(await operator.done(id)).toEqual(["parked"]);
      await operator.command(id, { command: "applied", recordId: "none" });
      expect((await operator.done(id)).at(-1)).toBe("refused: the shadow has no such record");
      const { id: own } = JSON.parse(shadow.records("mentors")[0] ?? "{}") as { id: number };
      await operator.command(id, { command: "applied", recordId: String(own) });
      expect((await operator.done(id)).at(-1)).toBe("applied");
      await expect.poll(pair.open, { timeout: 20_000 }).toEqual([]);
      await caughtUp(pair.later);
      expect(shadow.records("mentors")).toEqual([]);
      expect(shadow.effects.map(({ op }) => op)).toEqual(["create", "delete"]);
    });

    test("a person is asked; what is rejected is closed, and the held delete has nothing to do", async () => {
      await using pair = await parkedSeed();
      const { id, operator, shadow } = pair;
      await operator.command(id, { command: "reject" });
      await expect.poll(pair.open, { timeout: 20_000 }).toEqual([]);
      expect(shadow.effects.map(({ op }) => op)).toEqual(["create"]);
    });
  });

  test("a change whose create is unclear, and is not made there any more, is taken over if it was made", async () => {
    await using pair = await startLater(queues, opaqueBut({}));
    const { gateway, primary, shadow } = pair;
    const before = await pair.addShadow();
    await added(before);
    shadow.script(createsFirst, faults.loseReply());
    const phone = newPhone(gateway);
    const recordId = tempId();
    const create = phone.add({ op: "create", entity: "mentor", recordId, data: { name: "first" } });
    await phone.replay();
    await caughtUp(before);
    expect(await openOf(gateway, [create])).toEqual(["parked"]);
    await before.close();
    const upstreams = withShadow(primary.url, shadow.url, opaqueBut({ enabled: false }));
    const { redisUrl } = gateway.environment;
    const redis = redisUrl !== undefined && { redisUrl };
    await using after = await startGateway({ queues, database: gateway.database, upstreams, ...redis });
    const operator = newShadowOperator(after);
    await operator.command(create.id, { command: "retry" });
    expect(await operator.done(create.id)).toEqual(["applied"]);
    phone.add({ op: "update", entity: "mentor", recordId, data: { name: "second" } });
    await phone.replay();
    await caughtUp(after);
    const held = await bothHold(pair);
    expect(held.shadow).toEqual(held.primary);
    expect(shadow.effects.map(({ op }) => op)).toEqual(["create", "update"]);
  });
});
