import { pino } from "pino";

import { parseConfig } from "../../src/platform/config/load.ts";
import type { Connector } from "../../src/upstream/connector.ts";
import { openModuleConnector } from "../../src/upstream/module/open-module.ts";

export interface ModuleUnderTest {
  /** The file, as an absolute path. */
  module: string;
  /** The entities that are called. */
  entities: readonly string[];
  settings?: Record<string, unknown>;
  baseUrl?: string;
  timeoutMs?: number;
  /** Further keys of the upstream, as in the configuration: `auth`, `actorHeader` … */
  upstream?: Record<string, unknown>;
}

/**
 * Opens a module as the gateway does: by a configuration, which is checked, and behind the same guard.
 * @throws {TidegateError} `config-invalid` when it would not start with it.
 */
export function openModule({
  module,
  entities,
  settings = {},
  upstream = {},
  ...rest
}: ModuleUnderTest): Connector {
  const legacy = {
    role: "primary",
    module,
    settings,
    ...rest,
    ...upstream,
    entities: Object.fromEntries(entities.map((name) => [name, {}])),
  };
  const auth = {
    issuer: "nobody",
    audience: "nobody",
    algorithm: "RS256",
    jwksUri: "https://nobody.example",
  };
  const text = JSON.stringify({ tenants: { nobody: { auth, upstreams: { legacy } } } }, undefined, 2);
  const { config } = parseConfig(text, { file: "conformance.yaml", env: {} });
  return openModuleConnector("legacy", config.tenants["nobody"]!.upstreams["legacy"]!, {
    log: pino({ level: "silent" }),
  });
}
