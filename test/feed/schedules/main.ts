import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** `npm run test:feed -- --schedules 1000 --seed 1`: as many random schedules of the feed as one likes. */
const { values } = parseArgs({
  options: {
    schedules: { type: "string", default: "1000" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1_000_000)) },
  },
});
const root = fileURLToPath(new URL("../../../", import.meta.url));
process.stdout.write(`${values.schedules} schedules from seed ${values.seed} on\n`);
const child = spawn(
  process.execPath,
  ["node_modules/vitest/vitest.mjs", "run", "test/feed/schedules.test.ts"],
  {
    cwd: root,
    env: { ...process.env, FEED_SCHEDULES: values.schedules, FEED_SEED: values.seed },
    stdio: "inherit",
  },
);
const [code] = (await once(child, "close")) as [number | null];
process.exitCode = code ?? 1;
