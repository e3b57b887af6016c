import { describe, expect, test } from "vitest";

import { aRecord, creation, failureOf, operationsOf, readBack, saying, started } from "./calls.ts";
import type { Kind } from "./kind.ts";

/** Creates, updates, deletes; conflicts; IDs; what is carried beside the data. */
export function describeChanges(kind: Kind): void {
  const { entity, can } = kind;
  const key = { entity, idempotencyKey: "0192f0c2-0001" };

  describe("changes", () => {
    test.for(can.create)("a create of class %s makes the record and tells its ID", async (create) => {
      const subject = await started(kind, { create });
      const record = await subject.connector.create(creation(kind, create));
      expect(subject.server.records().map(saying)).toEqual([{ minutes: 45, note: "lunch" }]);
      expect(record?.id).toMatch(/./);
      const { id, body } = await readBack(subject, { entity, id: record!.id });
      expect(id).toBe(record!.id);
      expect(saying(body)).toEqual({ minutes: 45, note: "lunch" });
    });

    test("what a create tells of the record is what a read tells", async () => {
      const subject = await started(kind);
      const record = await subject.connector.create(creation(kind));
      const read = await readBack(subject, { entity, id: record!.id });
      if (record!.version !== undefined) expect(record!.version).toBe(read.version);
      if (record!.body !== undefined) expect(saying(record!.body)).toEqual(saying(read.body));
    });

    test.for(can.update)("an update of class %s changes what it names and nothing else", async (update) => {
      const subject = await started(kind, { update });
      const [id, other] = subject.server.seed([aRecord(), aRecord(10, '"other"')]) as [string, string];
      const { version } = await readBack(subject, { entity, id });
      const changed = await subject.connector.update({
        ...key,
        id,
        version,
        patch: '{"minutes":50}',
        body: aRecord(50),
      });
      const read = await readBack(subject, { entity, id });
      expect(saying(read.body)).toEqual({ minutes: 50, note: "lunch" });
      if (changed?.version !== undefined) expect(changed.version).toBe(read.version);
      if (changed?.body !== undefined) expect(saying(changed.body)).toEqual(saying(read.body));
      expect(saying((await readBack(subject, { entity, id: other })).body).minutes).toBe(10);
    });

    test.for(can.delete)("a delete of class %s leaves the others", async (remove) => {
      const subject = await started(kind, { delete: remove });
      const [id, other] = subject.server.seed([aRecord(), aRecord(10)]) as [string, string];
      const { version } = await readBack(subject, { entity, id });
      await subject.connector.delete({ ...key, id, version });
      expect(await subject.connector.read({ entity, id })).toBeUndefined();
      expect(await subject.connector.read({ entity, id: other })).toBeDefined();
      expect(subject.server.records()).toHaveLength(1);
    });

    test.runIf(can.update.includes("conditional"))(
      "a change based on an old version conflicts and changes nothing",
      async () => {
        const subject = await started(kind, { update: "conditional", delete: "conditional" });
        const [id] = subject.server.seed([aRecord()]) as [string];
        const { version } = await readBack(subject, { entity, id });
        expect(version).toBeDefined();
        subject.server.change(id, '{"note":"theirs"}');
        const late = { ...key, id, version, patch: '{"minutes":50}', body: aRecord(50) };
        const refused = { certainty: "refused", disposition: "conflict" };
        expect(await failureOf(subject.connector.update(late))).toMatchObject(refused);
        if (can.delete.includes("conditional"))
          expect(await failureOf(subject.connector.delete({ ...key, id, version }))).toMatchObject(refused);
        expect(subject.server.records().map(saying)).toEqual([{ minutes: 45, note: "theirs" }]);
      },
    );

    test("a change of a record that is gone conflicts, and does not bring it back", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      subject.server.change(id, null);
      const update = { ...key, id, patch: '{"minutes":50}', body: aRecord(50) };
      const refused = { certainty: "refused", disposition: "conflict" };
      expect(await failureOf(subject.connector.update(update))).toMatchObject(refused);
      expect(await failureOf(subject.connector.delete({ ...key, id }))).toMatchObject(refused);
      expect(await subject.connector.read({ entity, id })).toBeUndefined();
      expect(subject.server.records()).toEqual([]);
    });

    const choosing = can.create.find((name) => name === "client-id" || name === "upsert");
    test.runIf(choosing !== undefined).for(can.ids)(
      "the ID %j is one record's, to the letter",
      async (id) => {
        const subject = await started(kind, { create: choosing! });
        await subject.connector.create({ ...creation(kind, choosing), id });
        expect((await readBack(subject, { entity, id })).id).toBe(id);
        await subject.connector.update({ ...key, id, patch: '{"minutes":50}', body: aRecord(50) });
        expect(subject.server.records().map((text) => saying(text).minutes)).toEqual([50]);
        await subject.connector.delete({ ...key, id });
        expect(subject.server.records()).toEqual([]);
      },
    );

    test.runIf(can.actor || can.requestId)("each call says for whom it is, and which it is", async () => {
      const subject = await started(kind);
      for (const operation of operationsOf(kind)) {
        const [id] = subject.server.seed([aRecord()]) as [string];
        await operation.run(subject, id, { actor: "kari", requestId: `call-${operation.name}` });
        const { actor, requestId } = subject.server.requests().at(-1)!;
        if (can.actor) expect([operation.name, actor]).toEqual([operation.name, "kari"]);
        if (can.requestId) expect(requestId).toBe(`call-${operation.name}`);
      }
    });
  });
}
