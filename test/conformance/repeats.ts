import { describe, expect, test } from "vitest";

import {
  aRecord,
  aTempId,
  creation,
  doneOrConflict,
  failureOf,
  readBack,
  saying,
  started,
  withReference,
} from "./calls.ts";
import type { Kind } from "./kind.ts";

const ambiguous = { certainty: "ambiguous" };

/** A reply is lost after the change took place, and what the class of the operation promises has to hold. */
export function describeRepeats(kind: Kind): void {
  const { entity, can } = kind;

  describe("repeats after a lost reply", () => {
    test.for(can.create)("a create of class %s makes one record", async (create) => {
      const subject = await started(kind, { create });
      const { connector, server } = subject;
      const tempId = aTempId();
      const call = creation(kind, create, withReference(kind, aRecord(), tempId));
      server.next("lose-reply");
      expect(await failureOf(connector.create(call))).toMatchObject(ambiguous);
      expect(server.records()).toHaveLength(1);
      if (create === "idempotency-key" || create === "upsert") {
        const record = await connector.create(call);
        expect(saying((await readBack(subject, { entity, id: record!.id })).body).minutes).toBe(45);
      }
      if (create === "client-id" || create === "conditional") {
        await doneOrConflict(connector.create(call));
        expect(saying((await readBack(subject, { entity, id: call.id! })).body).minutes).toBe(45);
      }
      if (create === "lookup") {
        const [found, ...others] = await connector.lookup({ entity, tempId });
        expect(saying((await readBack(subject, { entity, id: found!.id })).body).minutes).toBe(45);
        expect(others).toEqual([]);
      }
      expect(server.records()).toHaveLength(1);
    });

    test.for(can.update)("an update of class %s is there once", async (update) => {
      const subject = await started(kind, { update });
      const { connector, server } = subject;
      const [id] = server.seed([aRecord()]) as [string];
      const { version } = await readBack(subject, { entity, id });
      const call = { entity, idempotencyKey: "0192f0c2-0002", id, version };
      const change = { ...call, patch: '{"minutes":50}', body: aRecord(50) };
      server.next("lose-reply");
      expect(await failureOf(connector.update(change))).toMatchObject(ambiguous);
      const current = await readBack(subject, { entity, id });
      if (update === "conditional")
        expect(await failureOf(connector.update(change))).toMatchObject({ disposition: "conflict" });
      else if (update !== "opaque") await connector.update(change);
      const read = await readBack(subject, { entity, id });
      expect(saying(read.body)).toEqual({ minutes: 50, note: "lunch" });
      if (update === "conditional" || update === "idempotency-key")
        expect(read.version).toBe(current.version);
    });

    test.for(can.delete)("a delete of class %s leaves nothing, and its repeat says so", async (remove) => {
      const subject = await started(kind, { delete: remove });
      const { connector, server } = subject;
      const [id] = server.seed([aRecord()]) as [string];
      const { version } = await readBack(subject, { entity, id });
      const call = { entity, idempotencyKey: "0192f0c2-0003", id, version };
      server.next("lose-reply");
      expect(await failureOf(connector.delete(call))).toMatchObject(ambiguous);
      await doneOrConflict(connector.delete(call));
      expect(server.records()).toEqual([]);
    });
  });
}
