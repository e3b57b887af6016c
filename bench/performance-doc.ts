import { writeFile } from "node:fs/promises";

import {
  ingestTable,
  mappingsTable,
  pullsTable,
  replayTable,
  streamsTable,
  waitingTable,
  type Report,
} from "./report.ts";

const path = new URL("../docs/performance.md", import.meta.url);

/** Rewrites docs/performance.md with this run. */
export async function writePerformanceDoc(report: Report): Promise<void> {
  await writeFile(path, performanceDoc(report));
}

function performanceDoc(report: Report): string {
  return `${[
    "# Performance",
    "<!-- Written by `npm run bench -- --write-docs`; the words are in bench/performance-doc.ts. -->",
    introduction,
    machine(report),
    ...(report.ingest && report.options.ingest
      ? ["## Ingest", ingestWords(report.options.ingest), ingestTable(report.ingest)]
      : []),
    ...(report.replay && report.options.replay
      ? ["## Replay", replayWords(report.options.replay), replayTable(report.replay)]
      : []),
    ...(report.mappings && report.options.mappings
      ? ["## Mappings", mappingsWords(report.options.mappings), mappingsTable(report.mappings)]
      : []),
    ...(report.waiting && report.options.waiting
      ? ["## An upstream that is down", waitingWords(report.options.waiting), waitingTable(report.waiting)]
      : []),
    ...(report.streams && report.options.streams
      ? ["## Event streams", streamsWords(report.options.streams), streamsTable(report.streams)]
      : []),
    ...(report.pulls && report.options.pulls
      ? ["## Pulls", pullsWords(report.options.pulls), pullsTable(report.pulls)]
      : []),
  ].join("\n\n")}\n`;
}

const introduction = [
  "What the gateway does in a second, beside what the same machine does without it. Every figure is of one run of",
  "`npm run bench`: the contenders take turns, each round begins with another one, each contender, the load and the",
  "upstream are processes of their own, and everything is on loopback. A figure is the median of the rounds, beside the",
  "lowest and the highest; on a machine that others use as well, the share of the floor says more than the figure.",
].join("\n");

function machine({ date, machine: m }: Report): string {
  return [
    `The last run: ${date.slice(0, 10)}, ${m.cores} cores (${m.cpu}), ${m.memoryGiB} GiB, ${m.system}, Node ${m.node},`,
    `PostgreSQL ${m.postgres} ${process.env["TEST_DATABASE_URL"] ? "(given)" : "(embedded, fsync on)"}${m.redis ? ", Redis without persistence" : ", no Redis"}.`,
  ].join("\n");
}

function ingestWords({ connections, rounds }: NonNullable<Report["options"]["ingest"]>): string {
  return [
    `Mutations acknowledged in a second over ${connections} connections, ${rounds} rounds; a mutation's data has about 150 bytes.`,
    "Each phone has its own token and uploads four batches; four of five mutations create an activity, the fifth corrects",
    "the one before it.",
    "",
    "- **floor**: Fastify, a token check by @fastify/jwt, one insert of all rows into a table of a UUID and a text.",
    "- **naive**: the same, with an insert and a BullMQ job for each mutation, those of a batch at the same time.",
    "- **tidegate**: the gateway in the role `api`, logs and metrics on, nothing replayed meanwhile.",
  ].join("\n");
}

function replayWords({
  phones,
  mutationsPerPhone,
  concurrency,
  rounds,
  latenciesMs,
}: NonNullable<Report["options"]["replay"]>): string {
  return [
    `${phones} phones with ${mutationsPerPhone} mutations each (the mix is the one above), at most ${concurrency} calls in flight, an upstream that`,
    `answers after ${latenciesMs.join(", ")} ms, ${rounds} rounds. The time is that from the first to the last effect in the upstream's journal,`,
    "by a process that was started with everything already waiting. Out of order: changes that came after a later one of",
    "the same phone, or before the record that they change had an ID; the median of the rounds.",
    "",
    "- **floor**: a loop over each phone's calls with undici; nothing is durable.",
    "- **naive**: a BullMQ job for each mutation, no other books; IDs are kept in memory.",
    "- **tidegate on Redis / on Postgres**: the inbox is filled through the API, then a gateway in the role `worker` is",
    "  started. The run fails unless every mutation took effect once, in its phone's order, and has its outcome on record.",
    "- **the same, two workers**: two processes in the role `worker`, each with half of the calls in flight. One is a",
    "  single thread and uses one core.",
  ].join("\n");
}

function mappingsWords({
  phones,
  mutationsPerPhone,
  latencyMs,
  concurrency,
  alone,
  rounds,
}: NonNullable<Report["options"]["mappings"]>): string {
  return [
    "What a mutation costs more when its data goes through JSONata, which is evaluated in a thread beside the process's own.",
    `Alone: ${alone.toLocaleString("en-US")} mutations' data through the mappings and nothing else, ${concurrency} at once, microseconds for each; and the part`,
    "of that in which the process's own thread was busy, which is what other lanes, leases and requests wait for.",
    `Replay: ${phones} phones with ${mutationsPerPhone} mutations each, queues in Postgres, an upstream that answers after ${latencyMs} ms, as above; the share is`,
    `the time of a mutation that is there only with the mapping. ${rounds} rounds.`,
    "",
    "- **none**: the default, `$` both ways. The text is passed on unread.",
    "- **rename**: one line that gives fields other names, and one for the way back.",
    "- **typical**: 15 fields with dates, tables to look values up, text and sums; and the way back.",
    "- **upcasters**: three steps from a version to the next, and no mapping.",
  ].join("\n");
}

function streamsWords({
  readers,
  everyMs,
  writes,
  rounds,
}: NonNullable<Report["options"]["streams"]>): string {
  return [
    `${readers} readers of event streams in one scope, a change every ${everyMs} ms, ${writes} of them, ${rounds} rounds. The time is that from the`,
    "commit to the receipt by each reader. The run fails unless every reader has got every change once.",
    "",
    "- **floor**: a bare Fastify that writes what one LISTEN hears to every connection; nothing is read, what is missed is lost.",
    "- **tidegate**: the gateway in the role `api`; another process commits to the feed and announces it, as workers do.",
  ].join("\n");
}

function pullsWords({
  records,
  pageSize,
  clients,
  few,
  rounds,
}: NonNullable<Report["options"]["pulls"]>): string {
  return [
    `One tenant with ${records.toLocaleString("en-US")} records of about 200 bytes, of which one reader sees every tenth, and another ${few}; ${rounds} rounds.`,
    "The first reader pulls all that it sees, page after page, from the beginning;",
    `then ${clients} clients of it at once, each its last ${pageSize} changes; then the second reader all that it sees, again and again.`,
    "A page is read whole and not parsed.",
    "",
    "- **floor**: Fastify, a token check by @fastify/jwt, one keyset query over one table that holds each change with its data.",
    "- **by hand**: the same with the gateway's own tables: the feed of one scope, joined with its records.",
    "- **tidegate**: the gateway in the role `api`; all scopes of the reader, own outcomes, cursors that are signed.",
  ].join("\n");
}

function waitingWords({
  lanes,
  deadMs,
  latencyMs,
  concurrency,
}: NonNullable<Report["options"]["waiting"]>): string {
  return [
    `${lanes.toLocaleString("en-US")} phones upload a mutation each while the upstream answers 503. When all their lanes wait, ${deadMs / 1_000} s are`,
    "watched: the calls that the upstream still gets, and the database's transactions (of everything: sweepers, looks for",
    `lanes whose turn it is, the queues if they are there). Then it answers after ${latencyMs} ms, at most ${concurrency} calls at once: the time from`,
    "its return to the first effect and to the last, and by how many places an effect came before or after its lane's turn,",
    "which is by the time when it was due.",
  ].join("\n");
}
