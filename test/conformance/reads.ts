import { describe, expect, test } from "vitest";

import type { ListCall, UpstreamPage, UpstreamRecord } from "../../src/upstream/connector.ts";
import { aRecord, aTempId, failureOf, readBack, saying, started, withReference } from "./calls.ts";
import type { Kind, Subject } from "./kind.ts";

/** Reads, lookups, lists page by page. */
export function describeReads(kind: Kind): void {
  const { entity, can } = kind;
  const carrying = (tempId: string, minutes = 45): string => withReference(kind, aRecord(minutes), tempId);

  describe("reads", () => {
    test("a record that is not there is undefined", async () => {
      const subject = await started(kind);
      const [id] = subject.server.seed([aRecord()]) as [string];
      subject.server.change(id, null);
      expect(await subject.connector.read({ entity, id })).toBeUndefined();
    });

    test.runIf(can.update.includes("conditional"))(
      "a record has the same version until it changes",
      async () => {
        const subject = await started(kind, { update: "conditional" });
        const [id] = subject.server.seed([aRecord()]) as [string];
        const [one, two] = [await readBack(subject, { entity, id }), await readBack(subject, { entity, id })];
        expect(one.version).toBe(two.version);
        subject.server.change(id, '{"minutes":50}');
        expect((await readBack(subject, { entity, id })).version).not.toBe(one.version);
      },
    );
  });

  describe.runIf(can.reference !== undefined)("lookups", () => {
    test("none, the one, or several: always only those that carry our reference", async () => {
      const subject = await started(kind);
      const [ours, twice] = [aTempId(), aTempId()];
      const ids = subject.server.seed([carrying(ours), carrying(twice, 1), carrying(twice, 2), aRecord()]);
      const found = async (tempId: string): Promise<string[]> =>
        (await subject.connector.lookup({ entity, tempId })).map(({ id }) => id);
      expect(await found(aTempId())).toEqual([]);
      expect(await found(ours)).toEqual([ids[0]]);
      expect(new Set(await found(twice))).toEqual(new Set([ids[1], ids[2]]));
    });

    test("a server that ignores the search gives nobody else's record", async () => {
      const subject = await started(kind, { ignoresFilters: true });
      const ours = aTempId();
      const ids = subject.server.seed([carrying(aTempId()), carrying(ours), aRecord()]);
      const found = await subject.connector.lookup({ entity, tempId: ours });
      expect(found.map(({ id }) => id)).toEqual([ids[1]]);
      expect(await subject.connector.lookup({ entity, tempId: aTempId() })).toEqual([]);
    });

    test.runIf(can.pages)("where ours may be on another page, nobody says that it is not there", async () => {
      const subject = await started(kind, { ignoresFilters: true, pageSize: 2 });
      const ours = aTempId();
      const ids = subject.server.seed([aRecord(), aRecord(), aRecord(), carrying(ours)]);
      const found = await subject.connector.lookup({ entity, tempId: ours }).catch((error: unknown) => error);
      if (Array.isArray(found)) expect(found).toMatchObject([{ id: ids[3] }]);
      else expect(found).toMatchObject({ disposition: "park" });
    });
  });

  describe("lists", () => {
    test("an empty one is empty", async () => {
      const subject = await started(kind);
      expect(await walk(subject, entity)).toEqual([]);
    });

    test.runIf(can.pages).for([
      [1, 1],
      [3, 1],
      [3, 2],
      [3, 3],
      [3, 4],
      [4, 2],
      [7, 3],
    ] as const)("%i records in pages of %i are each found once", async ([count, pageSize]) => {
      const subject = await started(kind, { pageSize });
      const ids = subject.server.seed(Array.from({ length: count }, (_, index) => aRecord(index + 1)));
      const found = await walk(subject, entity);
      expect(found.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
      const read = await readBack(subject, { entity, id: ids[0]! });
      const listed = found.find(({ id }) => id === ids[0])!;
      expect(saying(listed.body)).toEqual(saying(read.body));
      if (listed.version !== undefined) expect(listed.version).toBe(read.version);
    });

    test.runIf(can.pages)(
      "a server that ignores pages is noticed or heard out, never believed half",
      async () => {
        const subject = await started(kind, { ignoresPages: true });
        const ids = subject.server.seed([aRecord(1), aRecord(2), aRecord(3)]);
        const found = await walk(subject, entity);
        expect(new Set(found.map(({ id }) => id))).toEqual(new Set(ids));
      },
    );

    test.runIf(can.since)("what has changed since a time holds every later change", async () => {
      const subject = await started(kind);
      const [, two] = subject.server.seed([aRecord(1), aRecord(2)]);
      const long = new Date(Date.now() - 86_400_000);
      expect(await walk(subject, entity, long)).toHaveLength(2);
      const future = new Date(Date.now() + 86_400_000);
      expect(await walk(subject, entity, future)).toEqual([]);
      subject.server.change(two!, '{"minutes":3}');
      const changed = await walk(subject, entity, long);
      expect(changed.map(({ body }) => saying(body).minutes)).toContain(3);
    });

    test.runIf(can.changes).for([1, 2, 10])(
      "what came after a list is named from its last page on, in pages of %i",
      async (pageSize) => {
        const subject = await started(kind, { pageSize });
        const [one, two, three] = subject.server.seed([aRecord(1), aRecord(2), aRecord(3)]);
        const listed = await lastPage(subject, { entity });
        expect(await lastPage(subject, { entity, after: listed.changes })).toMatchObject({ changed: [] });
        subject.server.change(one!, '{"minutes":10}');
        subject.server.change(two!, null);
        const [four] = subject.server.seed([aRecord(4)]);
        const later = await lastPage(subject, { entity, after: listed.changes });
        expect(new Set(later.changed)).toEqual(new Set([one, two, four]));
        expect(later.records).toEqual([]);
        subject.server.change(three!, null);
        const last = await lastPage(subject, { entity, after: later.changes });
        expect(last.changed).toEqual([three]);
      },
    );

    test.runIf(can.changes && can.since)("a list of a part tells no place for what changes", async () => {
      const subject = await started(kind);
      subject.server.seed([aRecord(1)]);
      const page = await subject.connector.list({ entity, since: new Date(0) });
      expect([page.records.length, page.changes]).toEqual([1, undefined]);
    });

    test("a page that can't be read is no end of the list", async () => {
      const subject = await started(kind);
      subject.server.seed([aRecord()]);
      subject.server.next("garbage");
      await failureOf(subject.connector.list({ entity }));
    });
  });
}

/** Every page, as the gateway's rounds go: until there is no further one, or none of its records is new. */
async function walk({ connector }: Subject, entity: string, since?: Date): Promise<UpstreamRecord[]> {
  const found = new Map<string, UpstreamRecord>();
  let after: string | undefined;
  do {
    const page = await connector.list(after === undefined ? { entity, since } : { entity, after });
    const fresh = page.records.filter(({ id }) => !found.has(id));
    for (const record of fresh) found.set(record.id, record);
    after = fresh.length === 0 ? undefined : page.next;
  } while (after !== undefined);
  return [...found.values()];
}

/** The last page of a list, with what every page has named. */
async function lastPage(
  { connector }: Subject,
  call: ListCall,
): Promise<UpstreamPage & { changed: string[]; changes: string }> {
  const changed: string[] = [];
  let page = await connector.list(call);
  for (;;) {
    changed.push(...(page.changed ?? []));
    if (page.next === undefined) break;
    page = await connector.list({ entity: call.entity, after: page.next });
  }
  expect(page.changes).toBeDefined();
  return { ...page, changed, changes: page.changes! };
}
