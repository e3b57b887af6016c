import { randomUUID } from "node:crypto";

import { expect } from "vitest";

import { tempId } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import type { RecordedRequest } from "../fixtures/scripted-store.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { resultOf, type Phone } from "./phone.ts";

/** An upstream whose failures keep nobody waiting. */
export const quiet = { circuit: { failures: 10_000, cooldownMs: 20 } };

/**
 * A parked create of a mentor, and behind it, in two batches: what is held, and what passes; all of it has come to a stand
 * when this returns. With `holdsLane` nothing passes.
 */
export async function withParked(upstream: ScriptedUpstream, phone: Phone, { holdsLane = false } = {}) {
  const [mentor, activity, marker] = [tempId(), tempId(), randomUUID()];
  upstream.script(bodyHas(marker), faults.status(418, { body: "no" }));
  const add = (mutation: Parameters<Phone["add"]>[0]) => phone.add({ ...mutation, data: dataOf(mutation) });
  const dataOf = ({ op, data }: { op: string; data?: unknown }) =>
    op === "delete" ? undefined : { marker, ...(data as object) };
  const parked = add({ op: "create", entity: "mentor", recordId: mentor });
  const held = [add({ op: "create", recordId: activity, data: { mentor, n: 1 } })];
  await phone.send({ wait: 0 });
  await expect
    .poll(async () => resultOf(await phone.outcomes(), parked).status, { timeout: 20_000 })
    .toBe("parked");
  held.push(
    add({ op: "update", recordId: activity, data: { n: 2 } }),
    add({ op: "update", entity: "mentor", recordId: mentor.toUpperCase(), data: { n: 3 } }),
    add({ op: "create", recordId: tempId(), dependsOn: [held[0]?.id], data: { n: 4 } }),
    add({ op: "delete", recordId: activity }),
  );
  const free = add({ op: "create", recordId: tempId(), data: { n: 5 } });
  await phone.replay({ wait: holdsLane ? 0 : 25 });
  return { marker, mentor, activity, parked, held, free };
}

/** What happened at the upstream to the records of a phone, in order. */
export function effectsOf(upstream: ScriptedUpstream, marker: string): string[] {
  const ours = new Set<string>();
  return upstream.effects.flatMap(({ op, collection, id, record, request }) => {
    if (record?.includes(marker)) ours.add(`${collection}/${id}`);
    if (!ours.has(`${collection}/${id}`)) return [];
    const { n } = JSON.parse(request.body.toString() || "{}") as { n?: number };
    return [`${op} ${collection}${n === undefined ? "" : ` ${n}`}`];
  });
}

/** A create that carries the marker. */
export function bodyHas(marker: string): (request: RecordedRequest) => boolean {
  return ({ method, body }) => method === "POST" && body.toString().includes(marker);
}
