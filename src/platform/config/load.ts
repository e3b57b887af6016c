import { readFileSync } from "node:fs";

import { TidegateError } from "../errors.ts";
import { pointerKeys } from "../json-text.ts";
import { checkAuth } from "./check-auth.ts";
import { completeHttp, type Surroundings } from "./check-http.ts";
import { checkPush, pemOf } from "./check-push.ts";
import { checkUpstreams } from "./check-upstream.ts";
import { hidingVariables } from "./placeholders.ts";
import { openReport, throwProblems, toLines, type Report } from "./report.ts";
import type { EntityConfig } from "./entity-schema.ts";
import type { OperationConfig } from "./operation-schema.ts";
import type { Config } from "./schema.ts";
import { validateAgainstSchema } from "./validate.ts";
import { readYaml } from "./yaml-file.ts";

export interface LoadedConfig {
  config: Config;
  /** Keys that are accepted but not acted on yet, and other doubts: `file:line:column path: message`. */
  warnings: string[];
}

/**
 * Reads the configuration file, takes its `${VAR}`s from `env`, and fills in the defaults.
 *
 * @throws {TidegateError} `config-invalid` with every problem of the file at once, a line for each:
 * `file:line:column path: message`. No line shows a variable's value. The gateway does not start.
 */
export function loadConfig(path: string, env: NodeJS.ProcessEnv): LoadedConfig {
  return parseConfig(readConfigFile(path), { file: path, env });
}

/** Reads a configuration from its text; `file` is its name in messages. Otherwise like `loadConfig`. */
export function parseConfig(text: string, surroundings: Surroundings): LoadedConfig {
  const { file, env } = surroundings;
  const yaml = readYaml(text, env);
  if (yaml.value === undefined) throwProblems(file, yaml.problems);
  const verdict = validateAgainstSchema(yaml);
  const problems = [...yaml.problems, ...verdict.problems];
  const withoutSecrets = hidingVariables(text, env);
  const report = openReport(yaml, { broken: verdict.broken, problems, withoutSecrets });
  const config = yaml.value as Config;
  if (config !== null && typeof config === "object") crossCheck(config, report, surroundings);
  throwProblems(file, problems);
  return { config: complete(config, surroundings), warnings: toLines(file, report.warnings) };
}

/** @throws {TidegateError} `config-invalid` when the file can't be read. */
export function readConfigFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const reason = code === "ENOENT" ? "there is no such file" : `can't be read (${code})`;
    throw new TidegateError("config-invalid", `${path}: ${reason}; TIDEGATE_CONFIG names it`, { cause });
  }
}

function crossCheck(config: Config, report: Report, surroundings: Surroundings): void {
  checkAuth(config, report);
  checkUpstreams(config, report, surroundings);
  checkPush(config, report);
  if (report.sound(["limits"], "mutationBytes", "bodyBytes"))
    if (config.limits.mutationBytes > config.limits.bodyBytes)
      report.problem(["limits", "mutationBytes"], "must not exceed `bodyBytes`");
}

/** Defaults that depend on other keys. */
function complete(config: Config, surroundings: Surroundings): Config {
  for (const { upstreams, push } of Object.values(config.tenants)) {
    if (push?.fcm) push.fcm.privateKey = pemOf(push.fcm.privateKey);
    for (const upstream of Object.values(upstreams)) {
      upstream.baseUrl = (upstream.baseUrl ?? "").replace(/\/+$/, "");
      completeHttp(upstream, surroundings);
      for (const entity of Object.values(upstream.entities)) {
        entity.path ??= "";
        entity.id ??= "";
        nameHeaders(entity);
        if (upstream.kind === "odata") nameOData(entity);
      }
    }
  }
  return config;
}

/** What the protocol has for everyone. */
function nameOData(entity: EntityConfig): void {
  entity.version ??= { pointer: "/@odata.etag" };
  if (entity.reference !== undefined)
    entity.lookup = `{path}?$filter=${pointerKeys(entity.reference).join("/")} eq '{tempId}'`;
}

function nameHeaders({ create, update, delete: remove }: EntityConfig): void {
  nameHeader(create, "If-None-Match");
  nameHeader(update, "If-Match");
  nameHeader(remove, "If-Match");
}

function nameHeader(operation: OperationConfig, conditionHeader: string): void {
  if (operation.class === "idempotency-key") operation.header ??= "Idempotency-Key";
  if (operation.class === "conditional" && !("query" in operation) && !("field" in operation))
    operation.header ??= conditionHeader;
}
