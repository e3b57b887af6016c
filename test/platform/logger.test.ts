import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { expect, test } from "vitest";

function startLogging(ending: string) {
  const path = join(import.meta.dirname, "logging-process.ts");
  return spawn(process.execPath, [path, ending], { stdio: ["ignore", "pipe", "ignore"] });
}

function messagesIn(lines: string): string[] {
  return lines
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

test.each(["exits", "throws"])("a process that %s has written every line", async (ending) => {
  const child = startLogging(ending);
  expect(messagesIn(await text(child.stdout))).toEqual(["first", "second"]);
});

test.each([
  ["a warning, and what was logged before it, is written at once", "warns"],
  ["a line that nothing follows is written all the same", "stays"],
])("%s", async (_, ending) => {
  const child = startLogging(ending);
  let lines = "";
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    lines += chunk.toString();
    if (lines.includes("second")) child.kill("SIGKILL");
  }
  expect(messagesIn(lines)).toEqual(["first", "second"]);
});

test("a reader who stalls costs so much memory and no more, and is told how many lines he lacks", async () => {
  const child = startLogging("floods");
  let lines = "";
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    lines += chunk.toString();
    if (/"dropped":\d+.*\n/.test(lines.slice(-1_000))) child.kill("SIGKILL");
  }
  const dropped = Number(/"dropped":(\d+)/.exec(lines)?.[1]);
  expect(dropped).toBeGreaterThan(0);
  // What was logged, but for the notice.
  expect(messagesIn(lines).length - 1 + dropped).toBe(200_002);
});
