import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";

import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { storeOptions } from "./capabilities.ts";
import { canChooseId, entityName, policies, policyEntities, type Policy } from "./policies.ts";
import { newPhone, toLine, type Result } from "./phone.ts";

/** A row of the table in docs/conflicts.md. */
interface Row {
  others: string;
  phone: string;
  basedOn: string;
  outcomes: Record<Policy, string>;
}

const rows = readTable();

let upstream: ScriptedUpstream;
let gateway: TestGateway;
beforeAll(async () => {
  upstream = await startScriptedUpstream(storeOptions);
  const { crm } = policyEntities(upstream.url, { timeoutMs: 10_000 });
  gateway = await startGateway({ upstreams: { crm } });
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.stop();
});

test("the table in the documentation has what is tested here", () => {
  expect(rows).toHaveLength(17);
});

test.each(
  classes.flatMap((name) => (["another phone", "a clerk"] as const).map((who) => [name, who] as const)),
)("%s: each case of the table, the others being %s", async (name, who) => {
  const cells = rows.flatMap((row) => policies.map((policy) => ({ row, policy })));
  const told = await Promise.all(
    cells.map(async ({ row, policy }) => [describeCell(row, policy), await play(row, policy, name, who)]),
  );
  const expected = cells.map(({ row, policy }) => [describeCell(row, policy), expectedOf(row, policy, name)]);
  expect(Object.fromEntries(told)).toEqual(Object.fromEntries(expected));
});

const describeCell = ({ others, phone, basedOn }: Row, policy: Policy): string =>
  `${others}; ${phone}; ${basedOn}; ${policy}`;

function expectedOf(row: Row, policy: Policy, name: CapabilityClass): string {
  if (row.phone === "creates" && !canChooseId(policy, name)) return "rejected invalid-mutation";
  return row.outcomes[policy];
}

/** Plays a case with a record of its own, and tells what it came to in the table's words. */
async function play(
  { others, phone: does, basedOn }: Row,
  policy: Policy,
  name: CapabilityClass,
  who: "another phone" | "a clerk",
): Promise<string> {
  const entity = entityName(policy, name);
  const recordId = randomUUID();
  const [mine, theirs] = [newPhone(gateway), newPhone(gateway)];
  const before = { minutes: 45, note: "n", kept: true };
  if (does !== "creates") upstream.seed(entity, [JSON.stringify({ id: recordId, ...before })]);
  // Everybody has seen it.
  if (does !== "creates") theirs.add({ op: "update", entity, recordId, data: { seen: true } });
  const [seen] = await theirs.replay();
  const change = { "changed another field": { note: "other" }, "set the same value": { minutes: 50 } }[
    others
  ];
  const patch = JSON.stringify(change ?? { minutes: 7 });
  if (does === "creates") upstream.seed(entity, [JSON.stringify({ id: recordId, minutes: 7 })]);
  else if (others === "nothing") expect(seen?.status).toBe("applied");
  else if (who === "a clerk") upstream.change(entity, recordId, others === "deleted it" ? null : patch);
  else {
    const op = others === "deleted it" ? "delete" : "update";
    theirs.add({ op, entity, recordId, ...(op === "update" && { data: JSON.parse(patch) as object }) });
    expect(toLine((await theirs.replay())[0]!)).toBe("applied");
  }
  const baseVersion = basedOn === "null" ? null : (seen?.version ?? "");
  const base = does === "updates" && { base: { minutes: 45 } };
  const op = ({ deletes: "delete", creates: "create" } as const)[does] ?? "update";
  const data = op !== "delete" && { data: { minutes: 50 } };
  mine.add({ op, entity, recordId, ...(op !== "create" && { baseVersion }), ...base, ...data });
  const [result] = await mine.replay();
  return inWords(result!, heldOf(entity, recordId), { ...before, seen: true, ...(change ?? { minutes: 7 }) });
}

/** What the table says of a result, if the upstream's record fits it. */
function inWords(
  result: Result,
  held: Record<string, unknown> | null,
  theirs: Record<string, unknown>,
): string {
  const { status, problem, current } = result;
  const line = toLine(result);
  if (status === "applied") {
    if (held === null) return "deleted";
    const isBoth = held["minutes"] === 50 && held["kept"] === true;
    return isBoth ? "applied" : `applied, with ${JSON.stringify(held)}`;
  }
  if (status !== "conflict") return line;
  const word = problem?.type.endsWith(":server-wins") ? "server-wins" : "conflict";
  if (current?.deleted) return held === null ? `${word}, deleted` : `${line}, with ${JSON.stringify(held)}`;
  const isTheirs = Object.entries(held ?? {}).every(([key, value]) => key === "id" || theirs[key] === value);
  const isTold = current === undefined || JSON.stringify(current.data) === JSON.stringify(held);
  return held && isTheirs && isTold
    ? word
    : `${line}, told ${JSON.stringify(current)} of ${JSON.stringify(held)}`;
}

function heldOf(entity: string, id: string): Record<string, unknown> | null {
  const request = { method: "GET", path: `/${entity}/${id}`, headers: {}, body: Buffer.alloc(0) };
  return JSON.parse(upstream.apply(request).body ?? "null") as Record<string, unknown> | null;
}

function readTable(): Row[] {
  const lines = readFileSync(new URL("../../docs/conflicts.md", import.meta.url), "utf8").split("\n");
  const head = lines.findIndex((line) => line.startsWith("| what others did |"));
  const end = lines.indexOf("", head);
  return lines.slice(head + 2, end).map((line) => {
    const [others = "", phone = "", basedOn = "", ...cells] = line
      .slice(1, -1)
      .split("|")
      .map((cell) => cell.trim());
    const outcomes = Object.fromEntries(policies.map((policy, index) => [policy, cells[index] ?? ""]));
    return { others, phone, basedOn, outcomes: outcomes as Record<Policy, string> };
  });
}
