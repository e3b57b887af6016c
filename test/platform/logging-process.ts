import { createLogger } from "../../src/platform/logger.ts";

/** A process that logs two lines, and ends as it is told. */
const log = createLogger("info");
log.info("first");
log[process.argv[2] === "warns" ? "warn" : "info"]("second");
if (process.argv[2] === "exits") process.exit(0);
if (process.argv[2] === "throws") throw new Error("nobody catches this");
setInterval(() => undefined, 60_000);
