import type { Logger } from "pino";

import type { Connector as OwnConnector } from "../../connector-module.ts";
import { loadModule } from "../../platform/config/load-module.ts";
import { moduleIn } from "../../platform/config/module-shape.ts";
import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { TidegateError } from "../../platform/errors.ts";
import type { Connector } from "../connector.ts";
import { withoutValues } from "../redact.ts";
import { failuresOf, toPlain } from "./failures.ts";
import { guardConnector } from "./module-connector.ts";
import { openModuleHttp } from "./module-http.ts";
import { moduleLog } from "./module-log.ts";

interface Opening {
  log: Logger;
}

/**
 * Opens the connector that the upstream's module makes.
 * @throws {TidegateError} `config-invalid` when it can't be opened, or lacks what its entities are said to have.
 */
export function openModuleConnector(id: string, config: UpstreamConfig, { log }: Opening): Connector {
  const { module: file = "", settings = {}, baseUrl, timeoutMs, concurrency } = config;
  const http = baseUrl === "" ? undefined : openModuleHttp(config);
  const context = {
    upstream: id,
    timeoutMs,
    concurrency,
    log: moduleLog(log, id, settings),
    failure: failuresOf(config),
    http,
  };
  const refused = (reason: string): TidegateError =>
    new TidegateError("config-invalid", `upstream ${id}: the module ${reason}`);
  const loaded = loadModule(file);
  if ("reason" in loaded) throw refused(loaded.reason);
  const found = moduleIn(loaded.exports);
  if (!found) throw refused("exports no connector");
  let connector: OwnConnector;
  try {
    connector = found.open(settings, context);
  } catch (error) {
    throw refused(`can't be opened (${withoutValues(toPlain(error), JSON.stringify(settings))})`);
  }
  const [missing] = missingIn(connector, config);
  if (missing !== undefined) throw refused(`opens no connector with \`${missing}\``);
  return guardConnector(connector, config, { log: log.child({ upstream: id }), beneath: http });
}

/** What the engine would call and is not there. */
function missingIn(connector: unknown, { entities }: UpstreamConfig): string[] {
  const all = Object.values(entities);
  const any = (can: (entity: EntityConfig) => boolean): boolean => all.some(can);
  const wanted = {
    create: any((entity) => entity.create.enabled),
    update: any((entity) => entity.update.enabled),
    delete: any((entity) => entity.delete.enabled),
    read: true,
    lookup: any((entity) => entity.lookup !== undefined),
    list: any((entity) => entity.list !== undefined),
  };
  const has = (name: string): boolean =>
    typeof (connector as Record<string, unknown> | undefined | null)?.[name] === "function";
  return Object.entries(wanted).flatMap(([name, isWanted]) => (isWanted && !has(name) ? [name] : []));
}
