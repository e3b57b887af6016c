import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    globalSetup: ["test/fixtures/global-setup.ts"],
    pool: "forks",
    // A process for each file would spend more time on loading the same modules than most files need for their tests.
    // What has to be killed is in processes of its own.
    isolate: false,
    // Most tests wait more than they compute. More workers would share one Postgres without being faster.
    maxWorkers: Math.min(4, availableParallelism() + 1),
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // What is waited for comes within milliseconds, but not on a machine that has ten other things to do.
    expect: { poll: { timeout: 20_000 } },
  },
});
