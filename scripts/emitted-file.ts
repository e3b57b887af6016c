import { readFileSync, writeFileSync } from "node:fs";

/** Writes a generated file, or with `--check` fails when it is not what would be written. */
export function emitFile(path: string, content: string, { command }: { command: string }): void {
  if (!process.argv.includes("--check")) {
    writeFileSync(path, content);
    return;
  }
  if (readIfThere(path) === content) return;
  console.error(`${path} is stale: run \`${command}\` and commit it`);
  process.exitCode = 1;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
