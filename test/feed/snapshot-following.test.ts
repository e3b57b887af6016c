import { randomUUID } from "node:crypto";

import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox, type Outbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { readSnapshotPage, type SnapshotRecord } from "../fixtures/snapshots.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}", "group:{/groups}"] } }),
  });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

interface ActivityRecord {
  id: number;
  mentor: string;
  groups: string[];
}

/** What a phone holds: a snapshot in the making beside what it shows, which it takes the place of when it is whole. */
interface Reader {
  api: Api;
  clientId: string | undefined;
  sees: (record: ActivityRecord) => boolean;
  held: Map<string, unknown>;
  cursor: string | undefined;
  making: { page: string | undefined; records: Map<string, unknown> };
  /** The newest version that it was ever shown, by record. */
  shown: Map<string, number>;
}

type Deed =
  | { kind: "create"; actor: number; mentor: number; groups: number[] }
  | { kind: "move"; actor: number; record: number; mentor: number; groups: number[] }
  | { kind: "delete"; actor: number; record: number }
  | { kind: "read"; actor: number; limit: number; twice: boolean }
  | { kind: "begin"; actor: number };

const [writers, readers] = [3, 5];
const reading = fc.nat(readers - 1);
const writing = fc.nat(writers - 1);
const groups = fc.uniqueArray(fc.nat(2), { maxLength: 3 });
const record = fc.nat(7);
const create = { kind: fc.constant("create" as const), actor: writing, mentor: writing, groups };
const move = { kind: fc.constant("move" as const), actor: writing, record, mentor: writing, groups };
const remove = { kind: fc.constant("delete" as const), actor: writing, record };
const limit = fc.integer({ min: 1, max: 4 });
const read = { kind: fc.constant("read" as const), actor: reading, limit, twice: fc.boolean() };
const deed: fc.Arbitrary<Deed> = fc.oneof(
  { weight: 2, arbitrary: fc.record(create) },
  { weight: 5, arbitrary: fc.record(move) },
  { weight: 1, arbitrary: fc.record(remove) },
  { weight: 8, arbitrary: fc.record(read) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("begin" as const), actor: reading }) },
);
const start: Deed[] = [0, 1, 2, 0, 1, 2].map((n) => ({
  kind: "create",
  actor: n,
  mentor: n,
  groups: [n, 0],
}));
/** What everybody does at the same time, each one thing after the other; round by round. */
const programs = fc
  .array(fc.array(deed, { minLength: 8, maxLength: 20 }), { minLength: 3, maxLength: 5 })
  .map((rounds) => [start, ...rounds]);

test(
  "a snapshot and its cursor end with exactly the records in the scopes, however they move meanwhile",
  { timeout: 120_000 },
  async () => {
    await fc.assert(
      fc.asyncProperty(programs, async (program) => {
        const run = randomUUID();
        const names: Names = { mentor: (n) => `mentor${n}-${run}`, group: (n) => `group${n}-${run}` };
        const outboxes = Array.from({ length: writers }, () => newOutbox());
        const all = [
          ...outboxes.map(({ clientId }, n) => newReader(names.mentor(n), [names.group(n)], clientId)),
          newReader(`coordinator-${run}`, [0, 1, 2].map(names.group), undefined),
          newReader(`stranger-${run}`, [names.group(2)], randomUUID()),
        ];
        const known: string[] = [];
        for (const round of program) {
          const turns = all.map(async (actor, n) => {
            for (const one of round.filter((each) => each.actor === n)) {
              if (one.kind === "begin") begin(actor);
              else if (one.kind === "read") await readOn(actor, one);
              else await write(actor.api, outboxes[n]!, one, known, names);
            }
          });
          await Promise.all(turns);
        }
        const records = upstream.records("activities").map((text) => JSON.parse(text) as ActivityRecord);
        for (const reader of all) {
          while (await readOn(reader, { limit: 2, twice: false }));
          const expected = records.filter(reader.sees).map((one) => [String(one.id), one]);
          expect(Object.fromEntries(reader.held)).toEqual(Object.fromEntries(expected));
        }
      }),
      { numRuns: 6, endOnFailure: true },
    );
  },
);

function newReader(sub: string, memberOf: string[], clientId: string | undefined): Reader {
  return {
    api: gateway.as({ sub, groups: memberOf }),
    clientId,
    sees: ({ mentor, groups: inGroups }) =>
      mentor === sub || inGroups.some((group) => memberOf.includes(group)),
    held: new Map(),
    cursor: undefined,
    making: { page: undefined, records: new Map() },
    shown: new Map(),
  };
}

interface Names {
  mentor: (n: number) => string;
  group: (n: number) => string;
}

async function write(
  api: Api,
  outbox: Outbox,
  one: Exclude<Deed, { kind: "read" | "begin" }>,
  known: string[],
  names: Names,
): Promise<void> {
  const target = one.kind === "create" ? tempId() : known[one.record % Math.max(1, known.length)];
  if (target === undefined) return;
  outbox.add({
    op: one.kind === "move" ? "update" : one.kind,
    recordId: target,
    ...(one.kind !== "delete" && {
      data: { mentor: names.mentor(one.mentor), groups: one.groups.map(names.group) },
    }),
  });
  const { body } = await api.upload(outbox.batch());
  for (const { status, recordId } of body.results as { status: string; recordId: string }[]) {
    expect(status).not.toBe("pending");
    if (one.kind === "create" && status === "applied") known.push(recordId);
  }
}

/** Starts over from a snapshot, as after a cursor that was not honoured. */
function begin(reader: Reader): void {
  reader.cursor = undefined;
  reader.making = { page: undefined, records: new Map() };
}

/** Reads one page, of the snapshot while there is no cursor, else of the changes; whether there is more. */
async function readOn(
  reader: Reader,
  { limit: max, twice }: { limit: number; twice: boolean },
): Promise<boolean> {
  return reader.cursor === undefined
    ? await readSnapshotOn(reader, max, twice)
    : await readChangesOn(reader, reader.cursor, max);
}

async function readSnapshotOn(reader: Reader, max: number, twice: boolean): Promise<boolean> {
  const { clientId, making } = reader;
  const lost = twice
    ? await readSnapshotPage(reader.api, { clientId, limit: max, page: making.page })
    : undefined;
  for (const { id, version } of lost?.records ?? []) show(reader, id, version);
  const answer = await readSnapshotPage(reader.api, { clientId, limit: max, page: making.page });
  if (lost && making.page !== undefined) expectNoMoreThan(answer.records, lost.records);
  for (const { id, version, data } of answer.records) {
    expect(making.records.has(id)).toBe(false);
    making.records.set(id, data);
    show(reader, id, version);
  }
  making.page = answer.page;
  if (answer.cursor === undefined) return true;
  reader.cursor = answer.cursor;
  reader.held = making.records;
  return true;
}

/** Of the same page asked for again, only what has changed meanwhile is missing. */
function expectNoMoreThan(records: SnapshotRecord[], before: SnapshotRecord[]): void {
  const known = before.map(({ id, version }) => `${id} ${version}`);
  for (const { id, version } of records) expect(known).toContain(`${id} ${version}`);
}

async function readChangesOn(reader: Reader, cursor: string, max: number): Promise<boolean> {
  const query = new URLSearchParams({ limit: String(max), cursor });
  if (reader.clientId !== undefined) query.set("clientId", reader.clientId);
  const { status, body } = await reader.api.get(`/v1/changes?${query.toString()}`);
  expect(status).toBe(200);
  for (const { type, id, version, data } of body.changes as (SnapshotRecord & { type: string })[]) {
    if (type === "outcome") continue;
    if (type !== "upsert") reader.held.delete(id);
    else {
      show(reader, id, version);
      reader.held.set(id, data);
    }
  }
  reader.cursor = body.cursor as string;
  return body.more as boolean;
}

function show({ shown }: Reader, id: string, version: string): void {
  expect(Number(version)).toBeGreaterThanOrEqual(shown.get(id) ?? 0);
  shown.set(id, Number(version));
}
