import type { Logger } from "pino";

import { prepareEnvironment, type Environment } from "./platform/environment.ts";
import { TidegateError } from "./platform/errors.ts";
import { createLogger } from "./platform/logger.ts";
import { openRuntime, type Runtime } from "./runtime.ts";

/** `npm start`: opens the runtime in the role that the environment names, listens, and stops gracefully. */
async function main(): Promise<void> {
  const { environment, env } = prepareEnvironment(process.env);
  const log = createLogger(environment.logLevel);
  const opening = openRuntime({ environment, env, log });
  stopOnSignals(opening, log);
  const runtime = await opening;
  try {
    await listen(runtime, environment);
  } catch (error) {
    await runtime.close();
    throw error;
  }
  log.info({ role: environment.role, config: environment.configPath }, "Tidegate is ready");
}

async function listen({ app }: Runtime, { host, port }: Environment): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EADDRINUSE") throw cause;
    throw new TidegateError("port-in-use", `Port ${port} on ${host} is taken; set another PORT.`, { cause });
  }
}

/**
 * Stops on the first signal, also one that comes while the runtime is still being opened. A second one ends the process
 * at once; what was in flight is resolved at the next start.
 */
function stopOnSignals(opening: Promise<Runtime>, log: Logger): void {
  let isStopping = false;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (isStopping) process.exit(1);
    isStopping = true;
    log.info({ signal }, "stopping");
    const runtime = await opening;
    await runtime.close();
    log.info("stopped");
    process.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      stop(signal).catch((error: unknown) => {
        log.fatal({ err: error }, "the stop failed");
        process.exit(1);
      });
    });
  }
}

try {
  await main();
} catch (error) {
  const isExpected = error instanceof TidegateError;
  process.stderr.write(
    isExpected ? `${error.code}: ${error.message}\n` : `${(error as Error).stack ?? String(error)}\n`,
  );
  process.exit(1);
}
