import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";

import { randomOf, type Random } from "../faults/random.ts";
import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import type { QueuedMutation } from "../fixtures/outbox.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { storeOptions } from "./capabilities.ts";
import { entityName, policies, policyEntities, type Policy } from "./policies.ts";
import { newPhone, resultOf, type Phone, type Result } from "./phone.ts";

const fields = ["a", "b", "c"] as const;
const kinds = ["upsert", "whole", "conditional", "lookup"] as const;
type Kind = (typeof kinds)[number];
type Values = Record<string, unknown>;

let upstream: ScriptedUpstream;
let gateway: TestGateway;
beforeAll(async () => {
  upstream = await startScriptedUpstream(storeOptions);
  const { crm } = policyEntities(upstream.url) as { crm: { entities: Record<string, object> } };
  // What is sent as a whole, to an upstream without versions.
  const whole = policies.map((policy) => {
    const entity = crm.entities[entityName(policy, "upsert")];
    return [
      `${policy}-whole`,
      { ...entity, path: `/${policy}-whole`, update: { class: "upsert", method: "PUT" } },
    ];
  });
  const entities = { ...crm.entities, ...(Object.fromEntries(whole) as object) };
  gateway = await startGateway({ upstreams: { crm: { ...crm, entities } } });
  await gateway.another("worker");
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.stop();
});

/** `CONFLICT_PROGRAMS=20` plays more of them. */
const seeds = Array.from({ length: Number(process.env["CONFLICT_PROGRAMS"] ?? 3) }, (_, n) => n + 1);

test.each(policies.flatMap((policy) => kinds.map((kind) => [policy, kind] as const)))(
  "%s, %s: of three phones and a clerk nobody's change of a field disappears unseen",
  { timeout: 120_000 },
  async (policy, kind) => {
    const found = await Promise.all(
      seeds.map(async (seed) => await play(randomOf(seed, `${policy}-${kind}`), policy, kind)),
    );
    expect(
      found.flatMap(({ faults: all }, index) => all.map((fault) => `seed ${seeds[index]}: ${fault}`)),
    ).toEqual([]);
    // Else nothing was tried.
    const outcomes = found.flatMap(({ statuses }) => statuses);
    expect(outcomes).toContain("applied");
    if (policy !== "client-wins") expect(outcomes).toContain("conflict");
  },
);

/** What a phone knows of the record. */
interface View {
  version: string;
  data: Values;
}

interface Edit {
  mutation: QueuedMutation;
  phone: Phone;
  data: Values;
  /** What its author knew of the fields: seen, or made by an edit of its own before. */
  saw: Values;
  isGuarded: boolean;
}

async function play(
  random: Random,
  policy: Policy,
  kind: Kind,
): Promise<{ faults: string[]; statuses: string[] }> {
  const entity = `${policy}-${kind}`;
  const recordId = randomUUID();
  const path = `/${entity}/${recordId}`;
  upstream.seed(entity, [JSON.stringify({ id: recordId, a: "a0", b: "b0", c: "c0" })]);
  const phones = [newPhone(gateway), newPhone(gateway), newPhone(gateway)];
  phones[0]!.add({ op: "update", entity, recordId, data: { seen: true } });
  await phones[0]!.replay();
  const first = await viewOf(entity, recordId);
  const seen = phones.map(() => first);
  const history: Values[] = [first.data];
  const edits: Edit[] = [];
  const results: Result[] = [];
  let name = 0;
  for (let round = 0; round < 6; round++) {
    if (random.chance(0.6)) {
      upstream.change(entity, recordId, JSON.stringify({ [random.pick(fields)]: `clerk ${++name}` }));
      history.push(held(path));
    }
    const begun = upstream.effects.length;
    const acting = phones.filter(() => random.chance(0.7));
    for (const phone of acting) {
      const view = seen[phones.indexOf(phone)]!;
      const own = { ...view.data };
      for (let n = random.between(1, 2); n > 0; n--) {
        const edit = editOf(random, policy, {
          phone,
          entity,
          recordId,
          view,
          own,
          name: () => `phone ${++name}`,
        });
        edits.push(edit);
        Object.assign(own, edit.data);
      }
    }
    if (random.chance(0.4)) {
      upstream.script(
        ({ method, path: asked }) => method !== "GET" && asked === path,
        random.pick([faults.loseReply(), faults.loseRequest()]),
      );
    }
    results.push(...(await Promise.all(acting.map(async (phone) => await phone.replay()))).flat());
    const done = upstream.effects
      .slice(begun)
      .filter(({ collection, id }) => collection === entity && id === recordId);
    history.push(...done.map(({ record = "" }) => JSON.parse(record) as Values));
    for (const index of phones.keys()) if (random.chance(0.5)) seen[index] = await viewOf(entity, recordId);
  }
  return { faults: judge(policy, history, edits, results), statuses: results.map(({ status }) => status) };
}

function editOf(
  random: Random,
  policy: Policy,
  facts: {
    phone: Phone;
    entity: string;
    recordId: string;
    view: View;
    own: Values;
    name: () => string;
  },
): Edit {
  const { phone, entity, recordId, view, own, name } = facts;
  const touched = fields.filter(() => random.chance(0.4));
  const changed = touched.length > 0 ? touched : [random.pick(fields)];
  const data = Object.fromEntries(changed.map((field) => [field, name()]));
  // Some apps send more than was changed; what a merge is told of it is not a change.
  const more = policy === "merge" ? random.pick([...fields, undefined]) : undefined;
  const sent = more === undefined || more in data ? data : { [more]: own[more], ...data };
  const base = Object.fromEntries(Object.keys(sent).map((field) => [field, own[field]]));
  const baseVersion = random.chance(0.8) ? view.version : null;
  const mutation = phone.add({ op: "update", entity, recordId, baseVersion, base, data: sent });
  return { mutation, phone, data: sent, saw: { ...own }, isGuarded: baseVersion !== null };
}

/**
 * The oracle: what stood in the record, state by state, against what each author was told. Of every value that was
 * written over, whoever did it has seen it; unless the policy, or the author by naming no version, says that it does not matter.
 */
function judge(policy: Policy, history: Values[], edits: Edit[], results: Result[]): string[] {
  const said = edits.map((edit) => ({ ...edit, result: resultOf(results, edit.mutation) }));
  const written = (value: unknown): (typeof said)[number] | undefined =>
    said.findLast(({ data, saw }) =>
      Object.entries(data).some(([key, one]) => one === value && saw[key] !== one),
    );
  const found: string[] = [];
  for (const [index, state] of history.entries()) {
    const before = history[index - 1] ?? state;
    for (const field of fields) {
      const [old, value] = [before[field], state[field]];
      if (old === value || String(value).startsWith("clerk")) continue;
      const author = written(value);
      if (!author) found.push(`${field} went back from ${String(old)} to ${String(value)}`);
      else if (
        author.saw[field] !== old &&
        written(old)?.phone !== author.phone &&
        !mayOverwrite(policy, author)
      )
        found.push(`${String(value)} was written over ${String(old)}, which its author had not seen`);
    }
  }
  for (const { data, saw, result } of said) {
    const made = Object.entries(data).filter(([key, value]) => saw[key] !== value);
    const isThere = made.every(([key, value]) => history.some((state) => state[key] === value));
    const code = result.problem?.type.split(":").at(-1);
    if (result.status === "applied" && !isThere)
      found.push(`${JSON.stringify(data)} was applied and never there`);
    if (
      result.status === "conflict" &&
      code !== (policy === "server-wins" ? "server-wins" : "upstream-conflict")
    )
      found.push(`a conflict says ${code}`);
    if (result.status !== "applied" && result.status !== "conflict") found.push(`ended ${result.status}`);
  }
  return found;
}

const mayOverwrite = (policy: Policy, { isGuarded }: Edit): boolean =>
  policy === "client-wins" || (policy !== "merge" && !isGuarded);

function held(path: string): Values {
  const answer = upstream.apply({ method: "GET", path, headers: {}, body: Buffer.alloc(0) });
  return JSON.parse(answer.body ?? "null") as Values;
}

/** The record as phones are told of it: they all see the same. */
async function viewOf(entity: string, recordId: string): Promise<View> {
  await (follows = follows.then(follow));
  const view = views.get(`${entity}/${recordId}`);
  if (!view) throw new Error("the record is not in the feed");
  return view;
}

const views = new Map<string, View>();
let cursor: string | undefined;
/** One after the other, each from where the one before has ended. */
let follows = Promise.resolve();

async function follow(): Promise<void> {
  const api = gateway.as();
  for (let more = true; more;) {
    const after = cursor === undefined ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const { body } = await api.get(`/v1/changes?limit=1000${after}`);
    for (const { type, entity, id, version, data } of body.changes as Change[])
      if (type === "upsert") views.set(`${entity}/${id}`, { version, data });
    ({ cursor, more } = body as { cursor: string; more: boolean });
  }
}

interface Change extends View {
  type: string;
  entity: string;
  id: string;
}
