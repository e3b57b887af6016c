import { expect } from "vitest";

import { tempId, type TestGateway } from "../fixtures/gateway.ts";
import type { PageOptions } from "../fixtures/scripted-store.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";
import { startLater, type LaterPair } from "./later.ts";
import { bothHold, type PairConfig } from "./pair.ts";

export const matching = { match: "/memberNo", list: { page: "page", size: "size" } };

/** Not too many on a page. */
export const pages: PageOptions = { cap: 3 };

export async function startMatching(
  queues: "postgres" | "redis",
  config: PairConfig = {},
  options: PageOptions = pages,
): Promise<LaterPair> {
  const entity = { ...matching, ...config.entity };
  return await startLater(queues, { ...config, entity }, { pages: options });
}

export const memberOf = (n: number): string => `no. ${n}`;

/** Mentors with numbers; all but the first have the one before as their mentor. */
export function addMentors(phone: Phone, numbers: number[]): string[] {
  const ids = numbers.map(() => tempId());
  for (const [n, recordId] of ids.entries()) {
    const mentor = ids[n - 1];
    const data = { memberNo: memberOf(numbers[n] ?? 0), name: `m${n}`, ...(mentor && { mentor }) };
    phone.add({ op: "create", entity: "mentor", recordId, data });
  }
  return ids;
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, n) => from + n);
}

/** What the shadow held of these before anybody told it anything. */
export function hold(shadow: ScriptedUpstream, numbers: number[]): void {
  shadow.seed(
    "mentors",
    numbers.map((n) => JSON.stringify({ memberNo: memberOf(n), name: "old" })),
  );
}

export const creates = ({ effects }: ScriptedUpstream): string[] =>
  effects.flatMap(({ op, collection }) => (op === "create" ? [collection] : []));

export interface Open {
  mutation_id: string;
  state: string;
  problem: { code: string; detail: string } | null;
}

export async function open({ database }: Pick<TestGateway, "database">): Promise<Open[]> {
  return await rowsOf(database, "select * from delivery where upstream_id = 'next' order by seq");
}

const numbers = ({ records }: ScriptedUpstream): string[] =>
  records("mentors").map((text) => (JSON.parse(text) as { memberNo: string }).memberNo);

/** But for the shadow's own, by their numbers. */
export async function expectSame(pair: LaterPair, strangers: string[] = []): Promise<void> {
  const held = await bothHold(pair);
  expect(withoutStrangers(held.shadow)).toEqual(held.primary);
  expect(numbers(pair.shadow).toSorted()).toEqual([...numbers(pair.primary), ...strangers].toSorted());
  expect(await open(pair.gateway)).toEqual([]);
  expect(pair.gateway.log.join("\n")).not.toContain('"level":60');
}

export async function ownIdsOf({ gateway }: LaterPair): Promise<Map<string, string>> {
  const rows = await rowsOf<{ temp_id: string; own_id: string }>(
    gateway.database,
    "select temp_id, own_id from shadow_record join id_map using (entity, server_id)",
  );
  return new Map(rows.map((row) => [`urn:uuid:${row.temp_id}`, row.own_id]));
}

function withoutStrangers(held: unknown): unknown {
  const { mentors, ...rest } = held as { mentors: Record<string, unknown> };
  const known = Object.entries(mentors).filter(([id]) => !id.startsWith("?"));
  return { ...rest, mentors: Object.fromEntries(known) };
}
