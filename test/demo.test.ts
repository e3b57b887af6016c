import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";

// The demo is made for under a minute; a busy machine with all other tests beside it gets more.
const demoMs = 180_000;

let temp: string;
let child: ChildProcess;
let output: string;

beforeEach(async () => {
  temp = await mkdtemp(join(tmpdir(), "tidegate-test-"));
  output = "";
  child = spawn(process.execPath, ["examples/demo/demo.ts"], { env: { ...process.env, TMPDIR: temp } });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => (output += text));
  }
});

afterEach(async () => {
  if (child.exitCode === null) child.kill("SIGINT");
  await rm(temp, { recursive: true, force: true });
});

test(
  "the demo's story holds, and it leaves neither a process nor a file behind",
  async () => {
    const [code] = (await once(child, "close")) as [number];
    expect({ code, output }).toMatchObject({ code: 0, output: expect.stringMatching(/All \d+ checks held/) });
    await expectNothingLeft();
  },
  demoMs,
);

test(
  "an interrupted demo leaves neither a process nor a file behind",
  async () => {
    const ended = once(child, "close");
    while (!output.includes("Offline")) await once(child.stdout!, "data");
    child.kill("SIGINT");
    expect(await ended).toEqual([130, null]);
    await expectNothingLeft();
  },
  demoMs,
);

async function expectNothingLeft(): Promise<void> {
  expect(await readdir(temp)).toEqual([]);
  const urls = output.match(/http:\/\/127\.0\.0\.1:\d+(?=  )/g) ?? [];
  expect(urls).toHaveLength(3);
  for (const url of urls) await expect(fetch(url)).rejects.toThrow("fetch failed");
}
