import { parseArgs } from "node:util";

export interface BenchOptions {
  ingest: IngestOptions | undefined;
  replay: ReplayOptions | undefined;
  mappings: MappingsOptions | undefined;
  waiting: WaitingOptions | undefined;
  streams: StreamsOptions | undefined;
  pulls: PullsOptions | undefined;
  writeDocs: boolean;
  /** Where CPU profiles of the gateway's processes go; none are taken without it. */
  cpuProfDir: string | undefined;
}

export interface IngestOptions {
  rounds: number;
  connections: number;
  /** Batches of one turn, by mutations in a batch. A turn also ends after `turnMsMax`. */
  batches: Record<number, number>;
  turnMsMax: number;
}

export interface ReplayOptions {
  rounds: number;
  phones: number;
  mutationsPerPhone: number;
  latenciesMs: number[];
  concurrency: number;
}

export interface MappingsOptions {
  rounds: number;
  phones: number;
  mutationsPerPhone: number;
  latencyMs: number;
  concurrency: number;
  /** Mutations of a turn in which nothing is done but to map them, as many at once as there are calls in flight. */
  alone: number;
}

export interface WaitingOptions {
  /** Each of a phone with one mutation. */
  lanes: number;
  /** How long the upstream stays down when all of them wait. */
  deadMs: number;
  /** Of the upstream after its return. */
  latencyMs: number;
  concurrency: number;
}

export interface StreamsOptions {
  rounds: number;
  /** All in one scope. */
  readers: number;
  writes: number;
  everyMs: number;
}

export interface PullsOptions {
  rounds: number;
  /** Of the tenant; every tenth is in the scope of one reader. */
  records: number;
  pageSize: number;
  /** Of the reader of many, each pulling the last page. */
  clients: number;
  /** Records in the scope of another reader, and how often that one pulls them in a round. */
  few: number;
  fewTimes: number;
}

const fullPulls: PullsOptions = {
  rounds: 5,
  records: 1_000_000,
  pageSize: 500,
  clients: 200,
  few: 200,
  fewTimes: 200,
};
const quickPulls: PullsOptions = { ...fullPulls, rounds: 2, records: 100_000 };

const fullStreams: StreamsOptions = { rounds: 5, readers: 500, writes: 200, everyMs: 100 };
const quickStreams: StreamsOptions = { ...fullStreams, rounds: 1, writes: 50 };

const fullIngest: IngestOptions = {
  rounds: 7,
  connections: 8,
  batches: { 1: 3_000, 50: 800, 200: 300 },
  turnMsMax: 3_000,
};
const quickIngest: IngestOptions = {
  ...fullIngest,
  rounds: 5,
  batches: { 1: 1_000, 50: 300, 200: 100 },
  turnMsMax: 1_000,
};
const fullReplay: ReplayOptions = {
  rounds: 5,
  phones: 200,
  mutationsPerPhone: 50,
  latenciesMs: [0, 5, 20],
  concurrency: 64,
};
const quickReplay: ReplayOptions = { ...fullReplay, rounds: 2, latenciesMs: [5] };

const fullMappings: MappingsOptions = {
  rounds: 5,
  phones: 200,
  mutationsPerPhone: 50,
  latencyMs: 5,
  concurrency: 64,
  alone: 20_000,
};
const quickMappings: MappingsOptions = { ...fullMappings, rounds: 2, alone: 5_000 };

const fullWaiting: WaitingOptions = { lanes: 10_000, deadMs: 60_000, latencyMs: 5, concurrency: 64 };

const parts = ["ingest", "replay", "mappings", "waiting", "streams", "pulls"];

/** Reads the command line. @throws {Error} for an unknown option. */
export function readOptions(args: string[]): BenchOptions {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string" },
      rounds: { type: "string" },
      "write-docs": { type: "boolean", default: false },
      "cpu-prof-dir": { type: "string" },
    },
  });
  const { quick, only } = values;
  if (only !== undefined && !parts.includes(only)) {
    throw new Error(`--only takes one of ${parts.join(", ")}`);
  }
  const asks = (part: string): boolean => only === undefined || only === part;
  const rounds = values.rounds === undefined ? {} : { rounds: Number(values.rounds) };
  return {
    ingest: asks("ingest") ? { ...(quick ? quickIngest : fullIngest), ...rounds } : undefined,
    replay: asks("replay") ? { ...(quick ? quickReplay : fullReplay), ...rounds } : undefined,
    mappings: asks("mappings") ? { ...(quick ? quickMappings : fullMappings), ...rounds } : undefined,
    waiting: asks("waiting") && !quick ? fullWaiting : undefined,
    streams: asks("streams") ? { ...(quick ? quickStreams : fullStreams), ...rounds } : undefined,
    pulls: asks("pulls") ? { ...(quick ? quickPulls : fullPulls), ...rounds } : undefined,
    writeDocs: values["write-docs"],
    cpuProfDir: values["cpu-prof-dir"],
  };
}
