import { mkdir, writeFile } from "node:fs/promises";
import { arch, availableParallelism, cpus, platform, totalmem } from "node:os";

import type { PullsResult } from "./feed/pulls.ts";
import type { StreamsResult } from "./feed/streams.ts";
import type { IngestResult } from "./ingest/ingest.ts";
import type { MappingsResult } from "./mappings/mappings.ts";
import type { BenchOptions } from "./options.ts";
import type { ReplayResult } from "./replay/replay.ts";
import type { Spread } from "./stats.ts";
import type { WaitingResult } from "./waiting/waiting.ts";

export interface Report {
  date: string;
  machine: Machine;
  options: BenchOptions;
  ingest: IngestResult[] | undefined;
  replay: ReplayResult[] | undefined;
  mappings: MappingsResult[] | undefined;
  waiting: WaitingResult[] | undefined;
  streams: StreamsResult[] | undefined;
  pulls: PullsResult[] | undefined;
}

export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  system: string;
  node: string;
  postgres: string;
  redis: boolean;
}

export function describeMachine(servers: Pick<Machine, "postgres" | "redis">): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    system: `${platform()} ${arch()}`,
    node: process.versions.node,
    ...servers,
  };
}

const latest = new URL("results/latest.json", import.meta.url);

export async function writeJson(report: Report): Promise<void> {
  await mkdir(new URL(".", latest), { recursive: true });
  await writeFile(latest, `${JSON.stringify(report, null, 2)}\n`);
}

/** Markdown, to be read on a terminal as well. */
export function ingestTable(results: IngestResult[]): string {
  const rows = results.map((result) => [
    String(result.mutationsPerBatch),
    result.contender,
    ...rate(result.mutationsPerSecond),
    result.ratioToFloor.toFixed(2),
    result.batchMs.p50.toFixed(1),
    result.batchMs.p99.toFixed(1),
  ]);
  const head = ["batch of", "contender", "mutations/s", "min–max", "of the floor", "p50 ms", "p99 ms"];
  return table(head, rows, [1]);
}

export function replayTable(results: ReplayResult[]): string {
  const rows = results.map((result) => [
    `${result.latencyMs} ms`,
    result.contender,
    ...rate(result.mutationsPerSecond),
    result.ratioToFloor.toFixed(2),
    count(result.outOfOrder.median),
    count(result.duplicates),
  ]);
  const head = ["upstream", "contender", "replays/s", "min–max", "of the floor", "out of order", "doubled"];
  return table(head, rows, [1]);
}

export function mappingsTable(results: MappingsResult[]): string {
  const rows = results.map((result) => [
    result.contender,
    ...rate(result.aloneMicros),
    ...rate(result.mainMicros),
    ...rate(result.mutationsPerSecond),
    `${Math.round(result.shareOfReplay * 100)} %`,
  ]);
  const head = [
    "mapping",
    "alone, µs",
    "min–max",
    "main thread, µs",
    "min–max",
    "replays/s",
    "min–max",
    "share of the replay",
  ];
  return table(head, rows, [0]);
}

export function waitingTable(results: WaitingResult[]): string {
  const rows = results.map((result) => [
    result.contender,
    count(result.lanes),
    result.callsPerMinute.toFixed(1),
    count(result.transactionsPerMinute),
    `${(result.firstEffectMs / 1_000).toFixed(1)} s`,
    `${(result.lastEffectMs / 1_000).toFixed(1)} s`,
    count(result.displacementP99),
  ]);
  const head = [
    "",
    "lanes",
    "calls/min",
    "transactions/min",
    "first effect",
    "last effect",
    "out of turn, p99",
  ];
  return table(head, rows, [0]);
}

export function streamsTable(results: StreamsResult[]): string {
  const rows = results.map(({ contender, p50Ms, p99Ms }) => [contender, ...tenths(p50Ms), ...tenths(p99Ms)]);
  return table(["contender", "p50 ms", "min–max", "p99 ms", "min–max"], rows, [0]);
}

export function pullsTable(results: PullsResult[]): string {
  const rows = results.map((result) => [
    result.what,
    result.contender,
    ...rate(result.changesPerSecond),
    result.ratioToFloor.toFixed(2),
    result.pageMs.p50.toFixed(1),
    result.pageMs.p99.toFixed(1),
  ]);
  const head = ["pulled", "contender", "changes/s", "min–max", "of the floor", "page p50 ms", "p99 ms"];
  return table(head, rows, [0, 1]);
}

function tenths({ median, min, max }: Spread): string[] {
  return [median.toFixed(1), `${min.toFixed(1)}–${max.toFixed(1)}`];
}

function rate({ median, min, max }: Spread): string[] {
  return [count(median), `${count(min)}–${count(max)}`];
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** @param left the columns that hold words. */
function table(head: string[], rows: string[][], left: number[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: string[]): string =>
    `| ${cells.map((cell, column) => pad(cell, widths[column] ?? 0, left.includes(column))).join(" | ")} |`;
  const rule = widths.map((width, column) =>
    left.includes(column) ? "-".repeat(width) : `${"-".repeat(width - 1)}:`,
  );
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

function pad(cell: string, width: number, isLeft: boolean): string {
  return isLeft ? cell.padEnd(width) : cell.padStart(width);
}
