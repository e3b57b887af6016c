import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { TidegateError } from "./errors.ts";

/**
 * Adds the secrets that `env` lacks, for the demo only. They are generated once, kept in `<dataDir>/demo-secrets.json`
 * for the owner's eyes, and the same at the next start, so that tokens and cursors go on working.
 *
 * @returns a copy of `env`; what it sets itself wins
 * @throws {TidegateError} `config-invalid` when the file is damaged
 */
export function demoSecrets(dataDir: string, names: string[], env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const missing = names.filter((name) => env[name] === undefined || env[name] === "");
  if (missing.length === 0) return { ...env };
  const path = join(dataDir, "demo-secrets.json");
  const kept = readSecrets(path);
  const made = missing.filter((name) => kept[name] === undefined);
  const secrets = { ...kept, ...Object.fromEntries(made.map((name) => [name, newSecret()])) };
  if (made.length > 0) writeSecrets(dataDir, path, secrets);
  return { ...env, ...Object.fromEntries(missing.map((name) => [name, secrets[name]])) };
}

function newSecret(): string {
  return randomBytes(32).toString("base64url");
}

function readSecrets(path: string): Record<string, string> {
  const text = readIfThere(path);
  if (text === undefined) return {};
  try {
    const secrets: unknown = JSON.parse(text);
    if (isTextMap(secrets)) return secrets;
  } catch {
    // Told below, without the parser's words: they quote the file.
  }
  throw new TidegateError("config-invalid", `${path} is damaged; delete it, and new secrets are generated`);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function isTextMap(value: unknown): value is Record<string, string> {
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((entry) => typeof entry === "string")
  );
}

/** Written beside and renamed, so that a reader or a crash never meets half a file. */
function writeSecrets(dataDir: string, path: string, secrets: Record<string, string>): void {
  mkdirSync(dataDir, { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  try {
    writeFileSync(unfinished, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600, flush: true });
    renameSync(unfinished, path);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
}
