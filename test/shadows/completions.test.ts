import { describe, expect, test } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import { newPhone, type Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater } from "./later.ts";
import { newShadowOperator } from "./open.ts";
import { added, bothHold, caughtUp } from "./pair.ts";

/** Two mentors that refer to each other: one of them is seeded without its reference, and completed later. */
async function circle(phone: Phone) {
  const [one, two] = [tempId(), tempId()];
  phone.add({ op: "create", entity: "mentor", recordId: one, data: { name: "one", b: 1 } });
  phone.add({ op: "create", entity: "mentor", recordId: two, data: { name: "two", mentor: one, b: 1 } });
  phone.add({ op: "update", entity: "mentor", recordId: one, data: { mentor: two } });
  await phone.replay();
  return { one, two };
}

const removeB = (recordId: string) => ({
  op: "update" as const,
  entity: "mentor",
  recordId,
  data: { b: null },
});

const creates =
  (name: string) =>
  ({ method, body }: RecordedRequest): boolean =>
    method === "POST" && body.includes(`"${name}"`);
const createsTwo = creates("two");

const completes = ({ method, path }: RecordedRequest): boolean =>
  method === "PATCH" && path.startsWith("/mentors");

describe(
  "a field that is removed while a circle is seeded is removed in the shadow",
  { timeout: 120_000 },
  () => {
    test("the seed's first answer was lost", async () => {
      await using pair = await startLater("postgres", {});
      const { gateway, shadow } = pair;
      const phone = newPhone(gateway);
      const { two } = await circle(phone);
      const gate = Promise.withResolvers<void>();
      const lostLate: Fault = async ({ apply, socket }) => {
        apply();
        await gate.promise;
        socket.resetAndDestroy();
      };
      shadow.script(createsTwo, lostLate);
      const later = await pair.addShadow();
      await added(later);
      await shadow.received(createsTwo);
      phone.add(removeB(two));
      await phone.replay();
      gate.resolve();
      await caughtUp(later);
      const held = await bothHold(pair);
      expect(held.shadow).toEqual(held.primary);
    });

    test("the completion is refused for now", async () => {
      await using pair = await startLater("postgres", {});
      const { gateway, shadow } = pair;
      const phone = newPhone(gateway);
      const { one, two } = await circle(phone);
      shadow.script(completes, faults.status(429, { headers: { "retry-after": "2" } }));
      const later = await pair.addShadow();
      await added(later);
      await shadow.received(completes);
      phone.add(removeB(one));
      phone.add(removeB(two));
      await phone.replay();
      await caughtUp(later);
      const held = await bothHold(pair);
      expect(held.shadow).toEqual(held.primary);
    });

    test("a person says that the shadow has the seed", async () => {
      await using pair = await startLater("postgres", {});
      const { gateway, shadow } = pair;
      const phone = newPhone(gateway);
      const { two } = await circle(phone);
      shadow.script(createsTwo, faults.status(418));
      const later = await pair.addShadow();
      await caughtUp(later);
      shadow.seed("mentors", ['{"id":9000,"name":"two","b":1}']);
      phone.add(removeB(two));
      await phone.replay();
      await caughtUp(later);
      const open = "select mutation_id, state from delivery";
      const parked = (await rowsOf<{ mutation_id: string; state: string }>(gateway.database, open)).find(
        ({ state }) => state === "parked",
      );
      await newShadowOperator(later).command(parked!.mutation_id, { command: "applied", recordId: "9000" });
      await expect.poll(async () => await rowsOf(gateway.database, open), { timeout: 20_000 }).toEqual([]);
      const held = await bothHold(pair);
      expect(held.shadow).toEqual(held.primary);
    });
  },
);

test("a record that was listed before it referred to a newer one gets the reference when that has come", async () => {
  // What the shadow holds is asked for between the listing of the seeds and the first look at one of them.
  const entity = { match: "/email", list: { page: "page", size: "size" } };
  await using pair = await startLater("postgres", { entity, shadow: { timeoutMs: 30_000 } });
  const { gateway, shadow } = pair;
  const gate = Promise.withResolvers<void>();
  shadow.script({ method: "GET" }, faults.hold(gate.promise));
  const phone = newPhone(gateway);
  const [one, two] = [tempId(), tempId()];
  phone.add({ op: "create", entity: "mentor", recordId: one, data: { name: "old" } });
  await phone.replay();
  const later = await pair.addShadow();
  await shadow.received({ method: "GET" });
  phone.add({ op: "create", entity: "mentor", recordId: two, data: { name: "young" } });
  phone.add({ op: "update", entity: "mentor", recordId: one, data: { mentor: two } });
  await phone.replay();
  const young = Promise.withResolvers<void>();
  shadow.script(creates("young"), faults.hold(young.promise, { effect: true }));
  gate.resolve();
  const open = "select state from delivery";
  await expect.poll(async () => await rowsOf(gateway.database, open)).toEqual([{ state: "waiting" }]);
  young.resolve();
  await caughtUp(later);
  expect(await rowsOf(gateway.database, open)).toEqual([]);
  const held = await bothHold(pair);
  expect(held.shadow).toEqual(held.primary);
}, 120_000);
