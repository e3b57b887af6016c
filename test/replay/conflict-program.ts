import { randomUUID } from "node:crypto";

import type { Random } from "../faults/random.ts";
import type { TestGateway } from "../fixtures/gateway.ts";
import type { QueuedMutation } from "../fixtures/outbox.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { Policy } from "./policies.ts";
import { newPhone, resultOf, type Phone, type Result } from "./phone.ts";

const fields = ["a", "b", "c"] as const;
export const kinds = ["upsert", "whole", "conditional", "lookup"] as const;
export type Kind = (typeof kinds)[number];
type Values = Record<string, unknown>;

/** Where programs are played: some phones, and a clerk who works at the upstream itself. */
export interface Stage {
  upstream: ScriptedUpstream;
  gateway: TestGateway;
  /** Resolves when what the upstream holds now was asked for, if anybody asks. */
  asked: (entity: string) => Promise<unknown>;
}

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

export interface Played {
  /** What should not have happened. */
  faults: string[];
  statuses: string[];
}

/** Plays a program of three phones and a clerk on a record of its own. */
export async function play(
  { upstream, gateway, asked }: Stage,
  viewOf: (entity: string, recordId: string) => Promise<View>,
  random: Random,
  [policy, kind]: readonly [Policy, Kind],
): Promise<Played> {
  const entity = `${policy}-${kind}`;
  const recordId = randomUUID();
  const path = `/${entity}/${recordId}`;
  const isChange = ({ method, path: to }: RecordedRequest): boolean => method !== "GET" && to === path;
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
  /** What the clerk has left, and after how many effects. */
  const clerks: { after: number; state: Values }[] = [];
  const clerkChanges = (): void => {
    upstream.change(entity, recordId, JSON.stringify({ [random.pick(fields)]: `clerk ${++name}` }));
    clerks.push({ after: upstream.effects.length, state: held(upstream, path) });
  };
  /** The clerk is quicker than our answer, and who asks the upstream sees both. */
  const crossed: Fault = async ({ apply, send }) => {
    const answer = apply();
    clerkChanges();
    await asked(entity);
    send(answer);
  };
  for (let round = 0; round < 6; round++) {
    const begun = upstream.effects.length;
    if (random.chance(0.6)) clerkChanges();
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
    if (random.chance(0.6))
      upstream.script(isChange, random.pick([faults.loseReply(), faults.loseRequest(), crossed]));
    results.push(...(await Promise.all(acting.map(async (phone) => await phone.replay()))).flat());
    history.push(...statesOf(upstream, { entity, recordId, begun }, clerks.splice(0)));
    for (const index of phones.keys()) if (random.chance(0.5)) seen[index] = await viewOf(entity, recordId);
  }
  return { faults: judge(policy, history, edits, results), statuses: results.map(({ status }) => status) };
}

/** The record's states of a round, in their order: what the phones' changes left, and the clerk's. */
function statesOf(
  { effects }: ScriptedUpstream,
  { entity, recordId, begun }: { entity: string; recordId: string; begun: number },
  clerks: { after: number; state: Values }[],
): Values[] {
  const done = effects.slice(begun).flatMap(({ collection, id, record = "" }, index) => {
    if (collection !== entity || id !== recordId) return [];
    return [{ after: begun + index + 0.5, state: JSON.parse(record) as Values }];
  });
  return [...clerks, ...done].toSorted((a, b) => a.after - b.after).map(({ state }) => state);
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

function held(upstream: ScriptedUpstream, path: string): Values {
  const answer = upstream.apply({ method: "GET", path, headers: {}, body: Buffer.alloc(0) });
  return JSON.parse(answer.body ?? "null") as Values;
}

/** Tells records as phones are told of them: they all see the same. */
export function openViews({ gateway }: Pick<Stage, "gateway">) {
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

  return async (entity: string, recordId: string): Promise<View> => {
    await (follows = follows.then(follow));
    const view = views.get(`${entity}/${recordId}`);
    if (!view) throw new Error("the record is not in the feed");
    return view;
  };
}

interface Change extends View {
  type: string;
  entity: string;
  id: string;
}
