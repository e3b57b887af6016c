import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** For suites of connectors anywhere: the kit is found as `tidegate/…`, whatever is installed there. */
export default defineConfig({
  resolve: {
    alias: [
      { find: /^tidegate\/conformance\/(.*)$/, replacement: here("$1.ts") },
      { find: /^tidegate\/connector$/, replacement: here("../../src/connector-module.ts") },
    ],
  },
  test: {
    include: ["**/*.conformance.ts"],
    pool: "forks",
    isolate: false,
    testTimeout: 20_000,
    expect: { poll: { timeout: 10_000 } },
  },
});
