import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** `npm run conformance -- FILE [options of vitest]`: runs the suite of a connector, wherever it is. */
const [file, ...options] = process.argv.slice(2);
if (file === undefined) throw new Error("which file? e.g. npm run conformance -- ../ours/crm.conformance.ts");
const path = resolve(file);
const vitest = join(dirname(createRequire(import.meta.url).resolve("vitest/package.json")), "vitest.mjs");
const config = fileURLToPath(new URL("../test/conformance/vitest.config.ts", import.meta.url));
const child = spawn(
  process.execPath,
  [vitest, "run", "--config", config, "--root", dirname(path), path, ...options],
  { stdio: "inherit" },
);
const [code] = (await once(child, "exit")) as [number | null];
process.exitCode = code ?? 1;
