import { createLogger } from "../../src/platform/logger.ts";

/** A process that logs two lines, or many more than fit into memory, and ends as it is told. */
const log = createLogger("info");
for (let n = process.argv[2] === "floods" ? 200_000 : 0; n > 0; n--)
  log.info({ rest: "-".repeat(100) }, "more");
log.info("first");
log[process.argv[2] === "warns" ? "warn" : "info"]("second");
if (process.argv[2] === "exits") process.exit(0);
if (process.argv[2] === "throws") throw new Error("nobody catches this");
setInterval(() => undefined, 60_000);
