import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    globalSetup: ["test/fixtures/global-setup.ts"],
    // Each file in a process of its own: the tests start gateways, and stop some of them the hard way.
    pool: "forks",
    // More would share one Postgres and its disk without being faster.
    maxWorkers: Math.min(4, availableParallelism()),
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // What is waited for comes within milliseconds, but not on a machine that has ten other things to do.
    expect: { poll: { timeout: 20_000 } },
  },
});
