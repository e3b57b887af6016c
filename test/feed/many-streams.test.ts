import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";

import { afterAll, beforeAll, expect, test, vi } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, tokenFor, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { ManyTold } from "./many-readers.ts";

const count = 5_000;
const group = "everybody";

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let readers: ChildProcess;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { entity: { scopes: ["user:{/mentor}", "group:{/group}"] } }),
    follow: { lookEveryMs: 60_000, commentEveryMs: 5_000, stalledMs: 60_000 },
  });
  readers = fork(new URL("many-readers.ts", import.meta.url), { execArgv: [] });
});
afterAll(async () => {
  readers.kill("SIGKILL");
  await gateway.close();
  await upstream.stop();
});

async function ask(request: object | "told"): Promise<ManyTold> {
  const answered = once(readers, "message") as Promise<[ManyTold]>;
  readers.send(request);
  // What crosses as JSON has null for undefined.
  return (await answered)[0].map((changes) => changes ?? undefined);
}

async function write(data: object): Promise<void> {
  const outbox = newOutbox();
  outbox.add({ op: "create", recordId: tempId(), data });
  const { body } = await gateway.as({ sub: "writer" }).upload(outbox.batch());
  expect(body.results).toMatchObject([{ status: "applied" }]);
}

/** Waits until the readers have been told so many changes in all, and says how many each was told. */
async function whenTold(changes: number): Promise<ManyTold> {
  return await vi.waitFor(
    async () => {
      const told = await ask("told");
      expect(told.reduce<number>((sum, one) => sum + (one ?? 0), 0)).toBeGreaterThanOrEqual(changes);
      return told;
    },
    { timeout: 60_000, interval: 200 },
  );
}

async function openStreams(): Promise<number> {
  const text = await (await fetch(`${gateway.url}/metrics`)).text();
  return Number(/^tidegate_streams_open (\d+)$/m.exec(text)?.[1]);
}

test(
  "5,000 streams stay open in one process, and each is told what concerns it and nothing else",
  { timeout: 240_000 },
  async () => {
    const tokens = Array.from({ length: count }, (_, n) => tokenFor({ sub: `reader-${n}`, groups: [group] }));
    const opened = await ask({ port: Number(new URL(gateway.url).port), tokens });
    expect(opened.filter((changes) => changes === 0)).toHaveLength(count);
    expect(await openStreams()).toBe(count);

    await write({ mentor: "reader-17" });
    const one = await whenTold(1);
    expect(one.flatMap((changes, n) => (changes === 0 ? [] : [n]))).toEqual([17]);

    await write({ mentor: "nobody", group });
    const all = await whenTold(count + 1);
    expect(all.every((changes, n) => changes === (n === 17 ? 2 : 1))).toBe(true);
    expect(await openStreams()).toBe(count);
  },
);
