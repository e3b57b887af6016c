import { loadConfig } from "../platform/config/load.ts";
import { probeConfig } from "./probe.ts";
import { unsafeRepeats } from "./repeats.ts";
import type { Finding } from "./shown.ts";

interface CheckOptions {
  env: NodeJS.ProcessEnv;
  /** Also calls the upstreams; only reads. */
  isProbing: boolean;
  isJson: boolean;
  write: (text: string) => void;
}

/**
 * Checks a configuration file, and with `isProbing` what its upstreams answer. Gives the exit code: 0 all is well, 1
 * something is broken, 2 something could not be verified.
 *
 * @throws {TidegateError} `config-invalid` with every problem of the file, a line for each.
 */
export async function checkConfig(
  file: string,
  { env, isProbing, isJson, write }: CheckOptions,
): Promise<number> {
  const { config, warnings: own } = loadConfig(file, env);
  const warnings = [...own, ...unsafeRepeats(config)];
  const findings = isProbing ? await probeConfig(config) : [];
  const code = exitCodeOf(findings);
  if (isJson) write(`${JSON.stringify({ file, exitCode: code, warnings, findings }, undefined, 2)}\n`);
  else write(toText(file, { warnings, findings, isProbing }));
  return code;
}

function exitCodeOf(findings: Finding[]): number {
  if (findings.some(({ result }) => result === "broken")) return 1;
  return findings.some(({ result }) => result === "unverified") ? 2 : 0;
}

function toText(
  file: string,
  { warnings, findings, isProbing }: { warnings: string[]; findings: Finding[]; isProbing: boolean },
): string {
  const lines = [`${file} is valid.`, ...warnings.map((warning) => `warning: ${warning}`)];
  if (isProbing) lines.push(...toTable(findings), unwritten);
  return `${lines.join("\n")}\n`;
}

const unwritten = "Nothing was written: creates, updates and deletes were not tried.";

function toTable(findings: Finding[]): string[] {
  const rows = findings.map(({ tenant, upstream, entity, what, result, detail }) => [
    result,
    `${tenant}/${upstream}/${entity}`,
    what,
    detail,
  ]);
  const widths = [0, 1, 2].map((at) => Math.max(0, ...rows.map((row) => row[at]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
