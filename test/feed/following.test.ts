import { randomUUID } from "node:crypto";

import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import type { Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox, type Outbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

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

interface Change {
  type: "upsert" | "delete" | "revoke" | "outcome";
  id: string;
  data: unknown;
  result: { seq: number; status: string };
}

/** Follows the feed page by page, and holds what a phone would hold. */
interface Reader {
  api: Api;
  clientId: string | undefined;
  cursor: string | undefined;
  sees: (record: ActivityRecord) => boolean;
  held: Map<string, unknown>;
  outcomes: number[];
}

interface Phone extends Reader {
  outbox: Outbox;
}

interface ActivityRecord {
  id: number;
  mentor: string;
  groups: string[];
}

/** What the phones do at the same time, each one thing after the other. */
type Round = Deed[];
type Deed =
  | { kind: "create"; phone: number; mentor: number; groups: number[] }
  | { kind: "move"; phone: number; record: number; mentor: number; groups: number[] }
  | { kind: "delete"; phone: number; record: number }
  | { kind: "read"; phone: number; limit: number };

const phones = 3;
const phone = fc.nat(phones - 1);
const groups = fc.uniqueArray(fc.nat(2), { maxLength: 3 });
const record = fc.nat(5);
const deed: fc.Arbitrary<Deed> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("create" as const), phone, mentor: phone, groups }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("move" as const), phone, record, mentor: phone, groups }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("delete" as const), phone, record }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      phone,
      limit: fc.integer({ min: 1, max: 4 }),
    }),
  },
);
/** Everybody begins with a record in a group. */
const start: Round = [0, 1, 2].map((n) => ({ kind: "create", phone: n, mentor: n, groups: [n] }));
const rounds: fc.Arbitrary<Round[]> = fc
  .array(fc.array(deed, { minLength: 3, maxLength: 9 }), { minLength: 4, maxLength: 6 })
  .map((program) => [start, ...program]);

test(
  "whoever follows the cursor ends with exactly the records in the scopes, as the upstream has them",
  { timeout: 120_000 },
  async () => {
    await fc.assert(
      fc.asyncProperty(rounds, async (program) => {
        const run = randomUUID();
        const names = {
          mentor: (n: number) => `mentor${n}-${run}`,
          group: (n: number) => `group${n}-${run}`,
        };
        const known: string[] = [];
        const readers = [
          ...Array.from({ length: phones }, (_, n) => newPhone(names.mentor(n), [names.group(n)])),
          newReader(`coordinator-${run}`, [names.group(0), names.group(1)], undefined),
        ];
        const team = readers.slice(0, phones) as Phone[];
        for (const round of program) {
          await Promise.all(
            team.map((actor, n) =>
              actAll(
                actor,
                round.filter((one) => one.phone === n),
                known,
                names,
              ),
            ),
          );
        }
        for (const reader of readers) while (await readPage(reader, 3));

        const records = upstream.records("activities").map((text) => JSON.parse(text) as ActivityRecord);
        for (const { sees, held } of readers) {
          const expected = records.filter(sees).map((one) => [String(one.id), one]);
          expect(Object.fromEntries(held)).toEqual(Object.fromEntries(expected));
        }
        for (const { outbox, outcomes } of team) {
          const sent = Array.from({ length: outbox.batch().previousSeq }, (_, index) => index + 1);
          expect(outcomes).toEqual(sent);
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
    cursor: undefined,
    sees: ({ mentor, groups: inGroups }) =>
      mentor === sub || inGroups.some((group) => memberOf.includes(group)),
    held: new Map(),
    outcomes: [],
  };
}

function newPhone(sub: string, memberOf: string[]): Phone {
  const outbox = newOutbox();
  return { ...newReader(sub, memberOf, outbox.clientId), outbox };
}

interface Names {
  mentor: (n: number) => string;
  group: (n: number) => string;
}

async function actAll(actor: Phone, deeds: Deed[], known: string[], names: Names): Promise<void> {
  for (const one of deeds) await act(actor, one, known, names);
}

async function act(actor: Phone, one: Deed, known: string[], names: Names): Promise<void> {
  if (one.kind === "read") return void (await readPage(actor, one.limit));
  const data =
    one.kind === "delete"
      ? undefined
      : { mentor: names.mentor(one.mentor), groups: one.groups.map(names.group) };
  const target = one.kind === "create" ? undefined : known[one.record % Math.max(1, known.length)];
  if (one.kind !== "create" && target === undefined) return;
  actor.outbox.add({
    op: one.kind === "move" ? "update" : one.kind,
    recordId: target ?? tempId(),
    ...(data && { data }),
  });
  const { body } = await actor.api.upload(actor.outbox.batch());
  for (const { status, recordId } of body.results as { status: string; recordId: string }[]) {
    expect(status).not.toBe("pending");
    if (one.kind === "create" && status === "applied") known.push(recordId);
  }
}

/** Reads one page; whether there is more. */
async function readPage(reader: Reader, limit: number): Promise<boolean> {
  const { clientId, cursor } = reader;
  const query = new URLSearchParams({
    limit: String(limit),
    ...(clientId !== undefined && { clientId }),
    ...(cursor !== undefined && { cursor }),
  });
  const { body } = await reader.api.get(`/v1/changes?${query.toString()}`);
  reader.cursor = body.cursor;
  for (const change of body.changes as Change[]) {
    if (change.type === "outcome") reader.outcomes.push(change.result.seq);
    else if (change.type === "upsert") reader.held.set(change.id, change.data);
    else reader.held.delete(change.id);
  }
  return body.more as boolean;
}
