import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";

import { lostReplies, offline, outage, strangersRecords, whereItAllWent } from "./chapters.ts";
import { gatewayLog, makeTempDir, setScene, type Scene } from "./scene.ts";
import { createStage, type Stage } from "./stage.ts";
import { Broken, heading, heldCount, say } from "./tell.ts";
import { afterwards, whileItRuns } from "./try-next.ts";

/**
 * `npm run demo`: a phone, the gateway and a legacy system, a day with lost replies, every step checked.
 *
 * Exit code 0 only if everything held. Whatever happens, what was started is stopped and its files are removed.
 * `npm run demo -- --stay` keeps it running at the end, to play with.
 */
async function tell(stage: Stage, dir: string, stay: boolean): Promise<void> {
  const startedAt = Date.now();
  heading("Tidegate: a phone's outbox, a gateway, and a legacy system that knows nothing of either");
  say("Starting all three; the gateway brings a Postgres of its own.", "");
  const scene = await setScene(stage, dir);
  introduce(scene);
  const registered = await offline(scene);
  await lostReplies(scene);
  await strangersRecords(scene, registered);
  await whereItAllWent(scene, registered);
  await outage(scene, registered);
  const seconds = Math.round((Date.now() - startedAt) / 1000);
  say("", `All ${heldCount()} checks held, in ${seconds} s.`);
  if (stay) whileItRuns(scene);
  else afterwards();
}

function introduce({ gateway, legacy, air }: Scene): void {
  say(`legacy system   ${legacy.url}  json-server from npm, with strangers' records in it`);
  say(`gateway         ${gateway.url}  its own process, embedded Postgres, by configuration alone`);
  say(`Kari's phone    ${air.url}  reaches the gateway over a network that loses replies`);
}

function explain(error: unknown, dir: string): void {
  console.error(`\n${error instanceof Broken ? error.message : ((error as Error).stack ?? String(error))}`);
  const path = gatewayLog(dir);
  const log = existsSync(path) ? readFileSync(path, "utf8") : "";
  if (log) console.error(`\nThe end of the gateway's log:\n${log.trim().split("\n").slice(-20).join("\n")}`);
}

async function main(): Promise<number> {
  const stage = createStage();
  const stay = process.argv.includes("--stay");
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"].map((signal) => once(process, signal));
  const interrupted = Promise.race(signals).then(() => "interrupted" as const);
  const dir = await makeTempDir(stage);
  try {
    const told = tell(stage, dir, stay).then(() => "told" as const);
    const end = await Promise.race([told, interrupted]);
    if (end === "interrupted") {
      told.catch(() => undefined);
      say("", "Stopping.");
      return 130;
    }
    if (stay) await interrupted;
    return 0;
  } catch (error) {
    explain(error, dir);
    return 1;
  } finally {
    await stage.close();
  }
}

process.exit(await main());
