import { parseArgs } from "node:util";

import { atDatabase } from "./cli/at-database.ts";
import { TidegateError } from "./platform/errors.ts";
import { recoverDatabase, type Recovered } from "./platform/recovery.ts";

/** `npm run recover`: lets a database be served again that was restored, or failed over, to an earlier moment. */
async function main(env: NodeJS.ProcessEnv): Promise<void> {
  const options = { yes: { type: "boolean" }, snapshot: { type: "boolean" } } as const;
  const { yes: isMeant = false, snapshot: isSnapshot = false } = parseArgs({ options }).values;
  tell(await atDatabase(env, (url) => recoverDatabase(url, { isMeant, isSnapshot })));
}

function tell({ kind, before, after }: Recovered): void {
  const lines = {
    same: [
      "This is the database that was served; nothing is to be recovered.",
      "If a snapshot of its disk was put back, it looks the same all the same: then add --snapshot.",
    ],
    would: [
      `Nothing was changed. With --yes, ${plan}`,
      "Stop whatever still runs on the database that it was before.",
    ],
    done: [
      `Recovered at ${after.recoveredAt?.toISOString()}, and served as: ${after.identity}.`,
      `The feed's epoch was ${before.epoch} and is ${after.epoch}.`,
      "Running processes go on by themselves.",
    ],
  };
  const was = [`It is:         ${before.identity}`, `It was served: ${before.servedAs ?? "never"}`];
  process.stdout.write([...was, ...lines[kind], ""].join("\n"));
}

const plan =
  "it is served as it is, with a new epoch of the feed, and what occurred until a day from now is looked for in the " +
  "upstream before it is sent.";

try {
  await main(process.env);
} catch (error) {
  const isUsage = error instanceof TypeError && "code" in error;
  if (!(error instanceof TidegateError) && !isUsage) throw error;
  process.stderr.write(`${String(error.code)}: ${error.message}\n`);
  process.exitCode = 1;
}
