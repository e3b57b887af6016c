import { parseArgs } from "node:util";

import type { Backend } from "./world/world.ts";

export interface Options {
  seeds: number[];
  seconds: number;
  backends: Backend[];
  workers: number;
  phones: number;
  /** How many records most changes go to. */
  hot: number;
  /** Share of the calls that fail at the upstream. */
  rate: number;
  /** Only disturbances whose names contain one of these. */
  kinds: string[];
  untilFailure: boolean;
}

export const defaults = { workers: 3, phones: 24, hot: 24, rate: 0.08 };

const usage = `npm run test:faults -- [options]
  --seed N        replay this seed alone
  --seeds N       as many seeds as that, from --seed or a random one on (1)
  --seconds S     how long each run is disturbed (15, at most 3600)
  --backend B     redis, postgres or both (both)
  --workers N     worker processes (${defaults.workers})
  --phones N      phones, each a lane (${defaults.phones})
  --hot N         records that most changes go to, so that phones meet there (${defaults.hot})
  --rate R        share of the calls that fail at the upstream (${defaults.rate})
  --faults A,B    only disturbances whose names contain one of these (see test/faults/schedule.ts)
  --until-failure end with the first run that fails`;

export function readOptions(args: string[]): Options | { usage: string } {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string" },
      seeds: { type: "string", default: "1" },
      seconds: { type: "string", default: "15" },
      backend: { type: "string", default: "both" },
      workers: { type: "string", default: String(defaults.workers) },
      phones: { type: "string", default: String(defaults.phones) },
      hot: { type: "string", default: String(defaults.hot) },
      rate: { type: "string", default: String(defaults.rate) },
      faults: { type: "string", default: "" },
      "until-failure": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return { usage };
  const first =
    values.seed === undefined ? Math.floor(Math.random() * 1e6) : whole("seed", values.seed, 0, 1e9);
  const count = whole("seeds", values.seeds, 1, 1_000);
  return {
    seeds: Array.from({ length: count }, (_, n) => first + n),
    seconds: whole("seconds", values.seconds, 1, 3_600),
    backends: backendsOf(values.backend),
    workers: whole("workers", values.workers, 1, 16),
    phones: whole("phones", values.phones, 2, 500),
    hot: whole("hot", values.hot, 4, 1_000),
    rate: Math.min(1, Math.max(0, Number(values.rate))),
    kinds: values.faults.split(","),
    untilFailure: values["until-failure"],
  };
}

function whole(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new Error(`--${name} must be a whole number from ${min} to ${max}\n\n${usage}`);
  return value;
}

function backendsOf(text: string): Backend[] {
  if (text === "both") return ["postgres", "redis"];
  if (text === "redis" || text === "postgres") return [text];
  throw new Error(`--backend must be redis, postgres or both\n\n${usage}`);
}
