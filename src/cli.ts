#!/usr/bin/env node
import { parseArgs } from "node:util";

import { checkConfig } from "./cli/check-config.ts";
import { forgetShadowOf } from "./cli/forget-shadow.ts";
import { tryMutation } from "./cli/try.ts";
import { TidegateError } from "./platform/errors.ts";

const usage = `tidegate check-config [FILE] [--probe] [--json]
tidegate try --tenant T --entity E [--upstream U] [--op create|update|delete] [--data FILE|-] [--schema N] [--config FILE]
tidegate forget-shadow TENANT UPSTREAM [--yes] [--give-up] [--by NAME] [--config FILE]
FILE of the configuration is by default what TIDEGATE_CONFIG names.
`;

const options = {
  probe: { type: "boolean" },
  json: { type: "boolean" },
  tenant: { type: "string" },
  entity: { type: "string" },
  upstream: { type: "string" },
  op: { type: "string" },
  data: { type: "string" },
  schema: { type: "string" },
  config: { type: "string" },
  yes: { type: "boolean" },
  "give-up": { type: "boolean" },
  by: { type: "string" },
} as const;

function write(text: string): void {
  process.stdout.write(text);
}

/**
 * `npm run check-config` and `npm run try` look at a configuration without serving it; `npm run forget-shadow` ends what the
 * configuration names no longer. Gives the exit code.
 */
async function main(env: NodeJS.ProcessEnv): Promise<number> {
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [command, named, second] = positionals;
  const {
    probe = false,
    json = false,
    config,
    yes = false,
    "give-up": givesUp = false,
    by,
    ...sample
  } = values;
  const isForgetting = command === "forget-shadow" && named !== undefined && second !== undefined;
  const file = (isForgetting ? undefined : named) ?? config ?? env["TIDEGATE_CONFIG"] ?? "config/demo.yaml";
  if (command === "check-config")
    return await checkConfig(file, { env, isProbing: probe, isJson: json, write });
  if (command === "try") return await tryMutation(file, { env, sample, write });
  if (isForgetting) {
    const id = { tenantId: named, upstreamId: second };
    const who = by ?? env["USER"] ?? "an operator";
    return await forgetShadowOf(file, id, { env, write, isMeant: yes, givesUp, by: who });
  }
  process.stderr.write(usage);
  return 1;
}

try {
  process.exitCode = await main(process.env);
} catch (error) {
  const isUsage = error instanceof TypeError && "code" in error;
  if (!(error instanceof TidegateError) && !isUsage) throw error;
  process.stderr.write(`${String(error.code)}: ${error.message}\n`);
  process.exitCode = 1;
}
