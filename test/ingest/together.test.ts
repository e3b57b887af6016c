import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { rowsOf } from "../replay/rows.ts";

test("of many uploads at the same moment each is judged by itself: a gap, a stranger, a clone, and the rest", async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway({ queues: "postgres", role: "api", upstreams: crm(upstream.url) });
  const sound = Array.from({ length: 30 }, () => newOutbox(randomUUID()));
  const [gap, foreign] = [newOutbox(randomUUID()), newOutbox(randomUUID())];
  foreign.add({ op: "create", recordId: tempId() });
  expect((await gateway.as({ sub: "owner" }).upload(foreign.batch(), { wait: 0 })).status).toBe(202);
  const queued = [...sound, gap, foreign].map((outbox) => [
    outbox.add({ op: "create", recordId: tempId() }).id,
    outbox.add({ op: "create", recordId: tempId() }).id,
  ]);
  // The same mutations under another clientId: what they share with is not known when the statement begins.
  const original = sound[0]!.batch();
  const clone = { ...original, clientId: randomUUID() };
  const answers = await Promise.all([
    gateway.as().upload({ ...gap.batch(), previousSeq: 7 }, { wait: 0 }),
    gateway.as({ sub: "stranger" }).upload(foreign.batch(), { wait: 0 }),
    gateway.as().upload(original, { wait: 0 }),
    gateway.as().upload(clone, { wait: 0 }),
    ...sound.slice(1).map(async (outbox) => await gateway.as().upload(outbox.batch(), { wait: 0 })),
  ]);
  expect(answers.map(({ status }) => status)).toEqual([409, 403, 202, 202, ...sound.slice(1).map(() => 202)]);
  const rows = await rowsOf(gateway.database, "select 1 from mutation_key");
  expect(rows).toHaveLength(2 * sound.length + 1);
  const blocks = await rowsOf<{ ids: string[] }>(
    gateway.database,
    "select ids from inbox_block where cardinality(ids) = 2",
  );
  expect(new Set(blocks.map(({ ids }) => ids.join()))).toEqual(
    new Set(queued.slice(0, sound.length).map((ids) => ids.join())),
  );
});
