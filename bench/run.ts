import { measurePulls } from "./feed/pulls.ts";
import { measureStreams } from "./feed/streams.ts";
import { measureIngest } from "./ingest/ingest.ts";
import { measureMappings } from "./mappings/mappings.ts";
import { readOptions } from "./options.ts";
import { writePerformanceDoc } from "./performance-doc.ts";
import { measureReplay } from "./replay/replay.ts";
import {
  describeMachine,
  ingestTable,
  mappingsTable,
  pullsTable,
  replayTable,
  streamsTable,
  waitingTable,
  writeJson,
  type Report,
} from "./report.ts";
import { startPostgres, startRedis } from "./servers.ts";
import { measureWaiting } from "./waiting/waiting.ts";

/** `npm run bench`: every contender in the same run, in turns, on loopback, each in its own process. */
async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const postgres = await startPostgres();
  const redis = await startRedis();
  if (!redis) {
    say(
      "THERE IS NO redis-server ON THE PATH: replay on Redis is left out, and the naive queue is in Postgres.",
    );
  }
  try {
    const parts = { postgres, redis, cpuProfDir: options.cpuProfDir, say };
    const report: Report = {
      date: new Date().toISOString(),
      machine: describeMachine({ postgres: postgres.version, redis: redis !== undefined }),
      options,
      ingest: options.ingest && (await measureIngest(parts, options.ingest)),
      replay: options.replay && (await measureReplay(parts, options.replay)),
      mappings: options.mappings && (await measureMappings(parts, options.mappings)),
      waiting: options.waiting && (await measureWaiting(parts, options.waiting)),
      streams: options.streams && (await measureStreams(parts, options.streams)),
      pulls: options.pulls && (await measurePulls(parts, options.pulls)),
    };
    if (report.ingest) say(`\n${ingestTable(report.ingest)}`);
    if (report.replay) say(`\n${replayTable(report.replay)}`);
    if (report.mappings) say(`\n${mappingsTable(report.mappings)}`);
    if (report.waiting) say(`\n${waitingTable(report.waiting)}`);
    if (report.streams) say(`\n${streamsTable(report.streams)}`);
    if (report.pulls) say(`\n${pullsTable(report.pulls)}`);
    await writeJson(report);
    if (options.writeDocs) await writePerformanceDoc(report);
  } finally {
    await redis?.stop();
    await postgres.stop();
  }
}

function say(line: string): void {
  console.log(line);
}

await main();
