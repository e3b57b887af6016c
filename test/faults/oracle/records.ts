import { isDeepStrictEqual } from "node:util";

import type { Queued } from "../phone.ts";
import type { Evidence } from "./evidence.ts";
import type { Violation } from "./violation.ts";

/** One server ID for each temp ID, the one under which the upstream made the record, wherever it is named. */
export function judgeIds({ effects, idMap, mutations, keys }: Evidence): Violation[] {
  const violations: Violation[] = [];
  const serverIds = new Map(idMap.map((row) => [row.temp_id, row.server_id]));
  for (const { op, id, causes, record } of effects) {
    const [cause] = causes;
    if (!cause) continue;
    const published = serverIds.get(cause.record.tempId);
    if (op === "create" && published !== undefined && published !== id) {
      const what = `the record was made as ${id} and is published as ${published}`;
      violations.push({ kind: "ids", what, about: [cause] });
    }
    const reference = (cause.body["data"] as Record<string, unknown> | undefined)?.[`r${cause.phone.index}`];
    if (typeof reference !== "string" || record === undefined) continue;
    const sent = (JSON.parse(record) as Record<string, unknown>)[`r${cause.phone.index}`];
    const expected = serverIds.get(reference.slice("urn:uuid:".length));
    if (sent !== expected) {
      const what = `a reference reached the upstream as ${String(sent)} instead of ${expected}`;
      violations.push({ kind: "ids", what, about: [cause] });
    }
  }
  for (const queued of mutations) {
    const isApplied = keys.get(queued.body.id)?.status === "applied";
    if (queued.body.op === "create" && isApplied && !serverIds.has(queued.record.tempId))
      violations.push({ kind: "ids", what: "an applied create has no server ID", about: [queued] });
  }
  return violations;
}

/** The copies are what the upstream holds; but for records with a change of which nobody knows yet. */
export function judgeRecords(evidence: Evidence): Violation[] {
  const { records, upstreamRecords, effects, keys } = evidence;
  const causes = new Map<string, Queued[]>();
  for (const effect of effects) {
    const name = `${effect.collection}/${effect.id}`;
    causes.set(name, [...(causes.get(name) ?? []), ...effect.causes]);
  }
  const isUnsettled = (name: string): boolean =>
    (causes.get(name) ?? []).some(({ body }) => keys.get(body.id)?.status === null);
  const copies = new Map(records.map((row) => [`${row.entity}/${row.server_id}`, row]));
  const names = new Set([...copies.keys(), ...upstreamRecords.keys()]);
  return [...names].flatMap((name): Violation[] => {
    if (isUnsettled(name)) return [];
    const copy = copies.get(name);
    const ours: unknown = copy && !copy.deleted && copy.data !== null ? JSON.parse(copy.data) : undefined;
    const theirs = upstreamRecords.get(name);
    if (isDeepStrictEqual(ours, theirs)) return [];
    const what = `${name} is ${JSON.stringify(ours)} here and ${JSON.stringify(theirs)} in the upstream`;
    return [{ kind: "records", what, about: (causes.get(name) ?? []).slice(-3) }];
  });
}
