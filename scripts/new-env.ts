import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

/** Writes .env as .env.example is, each placeholder replaced by a secret of its own. A file that is there stays. */
function writeEnv(): void {
  const example = readFileSync(".env.example", "utf8");
  const env = example.replaceAll(/=replace-me.*$/gm, () => `=${randomBytes(32).toString("hex")}`);
  writeFileSync(".env", env, { mode: 0o600, flag: "wx" });
  console.log(".env is written, for your eyes only");
}

try {
  writeEnv();
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  console.error(".env is there already; it was left as it is");
  process.exitCode = 1;
}
