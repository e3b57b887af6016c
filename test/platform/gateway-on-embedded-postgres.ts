import { startEmbeddedPostgres } from "../../src/platform/embedded-postgres.ts";

/** A gateway's ground floor as a process of its own, to be killed: prints its connection string and stays. */
const [, , dataDir] = process.argv;
if (dataDir === undefined) throw new Error("which data folder?");
const { superuserUrl, stop } = await startEmbeddedPostgres({ dataDir, log: () => undefined });
process.stdout.write(`${superuserUrl}\n`);
process.once("SIGTERM", () => void stop());
