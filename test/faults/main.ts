import { readOptions, type Options } from "./options.ts";
import { findingsOf, replayCommand, tableOf } from "./report.ts";
import { runOnce } from "./run.ts";
import { newCleanup, type Cleanup } from "./world/cleanup.ts";
import { hasRedis } from "./world/redis.ts";
import type { Backend } from "./world/world.ts";

const stopped = new AbortController();
let current: Cleanup | undefined;

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    stopped.abort();
    void current?.run().finally(() => process.exit(130));
  });
}

async function runAndTell(options: Options, backend: Backend, seed: number): Promise<boolean> {
  const one = { ...options, backend, seed };
  process.stdout.write(`\n${replayCommand(one)}\n`);
  const cleanup = newCleanup();
  current = cleanup;
  try {
    const result = await runOnce(one, cleanup, stopped.signal);
    process.stdout.write(`${tableOf(result)}\n`);
    if (result.violations.length === 0) return true;
    process.stdout.write(`${findingsOf(result)}\n\n!!! Again with: ${replayCommand(one)}\n`);
    return false;
  } finally {
    await cleanup.run();
  }
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if ("usage" in options) {
    process.stdout.write(`${options.usage}\n`);
    return 0;
  }
  const failed: string[] = [];
  let runs = 0;
  for (const seed of options.seeds) {
    for (const backend of options.backends) {
      if (backend === "redis" && !hasRedis()) {
        process.stdout.write("\n!!! LEFT OUT: the Redis backend, there is no redis-server on the PATH\n");
        continue;
      }
      runs++;
      if (!(await runAndTell(options, backend, seed))) failed.push(`${backend} ${seed}`);
      if (failed.length > 0 && options.untilFailure) return tellAll(runs, failed);
    }
  }
  return tellAll(runs, failed);
}

function tellAll(runs: number, failed: string[]): number {
  process.stdout.write(failed.length === 0 ? `\nall ${runs} runs ok\n` : `\nFAILED: ${failed.join(", ")}\n`);
  return failed.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!stopped.signal.aborted) {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = 1;
  }
}
