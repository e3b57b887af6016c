import { spawn } from "node:child_process";
import { once } from "node:events";
import { realpathSync, rmSync } from "node:fs";
import { cp, mkdtemp, readFile, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { sabotages, type Sabotage } from "./sabotages.ts";

/**
 * Takes one guard after the other out of a copy of the code, and expects the test that guards it, or a fault run, to
 * fail. It is an experiment with the suite, not with the code: what nobody notices here, nobody would notice at all.
 */
const root = fileURLToPath(new URL("../../../", import.meta.url));
const copied = ["src", "test", "config", "migrations", "package.json", "vitest.config.ts", "openapi.yaml"];

interface Verdict {
  caught: boolean;
  seconds: number;
  by: string;
}

async function copyWithout({ name, file, find, replace }: Sabotage): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-sabotage-"));
  process.once("exit", () => rmSync(dir, { recursive: true, force: true }));
  for (const part of copied) await cp(join(root, part), join(dir, part), { recursive: true });
  await symlink(realpathSync(join(root, "node_modules")), join(dir, "node_modules"));
  const path = join(dir, file);
  const text = await readFile(path, "utf8");
  if (text.split(find).length !== 2)
    throw new Error(`${name}: its text no longer stands exactly once in ${file}: ${find}`);
  await writeFile(
    path,
    text.replace(find, () => replace),
  );
  return dir;
}

/** Whether the command fails, as it should, for a reason of its own. */
async function failing(dir: string, args: string[], sign: RegExp, timeoutMs: number): Promise<Verdict> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
  const stop = (): void => void child.kill("SIGINT");
  process.once("exit", stop);
  const impatience = setTimeout(stop, timeoutMs);
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(impatience);
  process.off("exit", stop);
  const seconds = (performance.now() - startedAt) / 1_000;
  const by = sign.exec(output)?.[0].trim() ?? "";
  if (code !== 0 && by === "") process.stderr.write(`${output.slice(-2_000)}\n`);
  return { caught: code !== 0 && by !== "", seconds, by };
}

async function byTest({ test }: Sabotage, dir: string): Promise<Verdict> {
  const vitest = join("node_modules", "vitest", "vitest.mjs");
  const args = [vitest, "run", test.file, "-t", test.name, "--no-color"];
  const found = await failing(dir, args, /FAIL .*|AssertionError: .*/, 180_000);
  return { ...found, by: `${test.file}: ${test.name}` };
}

async function byRun(run: string[], dir: string, seeds: number): Promise<Verdict> {
  const args = ["test/faults/main.ts", "--seconds", "20", "--backend", "postgres", "--until-failure"];
  return await failing(
    dir,
    [...args, "--seed", "1", "--seeds", String(seeds), ...run],
    /^ {2}(duplicate|reorder|loss|stuck|opaque|ids|records|feed|deadlock|crash(?!: the suite)|told): .*/m,
    seeds * 240_000,
  );
}

function told({ caught, seconds, by }: Verdict): string {
  return `${caught ? "caught" : "NOT CAUGHT"} after ${seconds.toFixed(0)} s${caught ? `: ${by.slice(0, 110)}` : ""}`;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: "" },
      seeds: { type: "string", default: "1" },
      "tests-only": { type: "boolean", default: false },
      "runs-only": { type: "boolean", default: false },
    },
  });
  let missed = 0;
  for (const sabotage of sabotages.filter(({ name }) => name.includes(values.only))) {
    const dir = await copyWithout(sabotage);
    const verdicts: [string, Verdict][] = [];
    const { run } = sabotage;
    if (!values["runs-only"]) verdicts.push(["test ", await byTest(sabotage, dir)]);
    if (run && !values["tests-only"]) verdicts.push(["faults", await byRun(run, dir, Number(values.seeds))]);
    rmSync(dir, { recursive: true, force: true });
    process.stdout.write(`without ${sabotage.name}\n`);
    for (const [what, verdict] of verdicts) process.stdout.write(`  ${what} ${told(verdict)}\n`);
    // A run meets what a guard is for by chance; a test always does.
    if (!verdicts.some(([, { caught }]) => caught)) missed++;
  }
  process.stdout.write(missed === 0 ? "\nall were caught\n" : `\n${missed} were not caught\n`);
  return missed === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
process.exitCode = await main();
