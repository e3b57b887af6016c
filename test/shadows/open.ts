import { expect } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import type { QueuedMutation } from "../fixtures/outbox.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newOperator, type Operator } from "../replay/operator.ts";
import type { Phone } from "../replay/phone.ts";
import { rowsOf } from "../replay/rows.ts";

type Rows = Pick<TestGateway, "database">;

/** A person who decides about what is open in the shadow `next`. */
export function newShadowOperator(gateway: TestGateway): Operator {
  return newOperator(gateway, "ours", "shadows/next/changes");
}

/** What is open in the shadow of these, in their order: each with which of them it is held behind. */
export async function openOf({ database }: Rows, mutations: Pick<QueuedMutation, "id">[]): Promise<string[]> {
  const ids = mutations.map(({ id }) => id);
  const rows = await rowsOf<{ mutation_id: string; state: string; blocked_by: string | null }>(
    database,
    "select * from delivery where mutation_id = any($1)",
    [ids],
  );
  return ids.map((id) => {
    const row = rows.find(({ mutation_id }) => mutation_id === id);
    const behind = row?.blocked_by ? ` behind ${ids.indexOf(row.blocked_by)}` : "";
    return row ? row.state + behind : "none";
  });
}

/** Waits until nothing of these is open any more. */
export async function released(rows: Rows, mutations: Pick<QueuedMutation, "id">[]): Promise<void> {
  const open = async (): Promise<Set<string>> => new Set(await openOf(rows, mutations));
  await expect.poll(open, { timeout: 30_000 }).toEqual(new Set(["none"]));
}

/** What happened to the records with this marker, in order. */
export function effectsOf({ effects }: ScriptedUpstream, marker: string): string[] {
  const ours = new Set<string>();
  return effects.flatMap(({ op, collection, id, record, request }) => {
    if (record?.includes(marker)) ours.add(`${collection}/${id}`);
    if (!ours.has(`${collection}/${id}`)) return [];
    const { n } = JSON.parse(request.body.toString() || "{}") as { n?: number };
    return [`${op} ${collection}${n === undefined ? "" : ` ${n}`}`];
  });
}

/** Everything that the phone's client can see. */
export async function seenBy(phone: Phone): Promise<unknown> {
  const { body } = await phone.api.get(`/v1/changes?clientId=${phone.clientId}&limit=500`);
  return [await phone.outcomes(), body.changes];
}
