import { defaults } from "./options.ts";
import type { RunOptions, RunResult } from "./run.ts";
import { storyOf } from "./oracle/story.ts";
import type { Violation } from "./oracle/violation.ts";

const kinds: Violation["kind"][] = [
  "duplicate",
  "reorder",
  "loss",
  "stuck",
  "opaque",
  "ids",
  "records",
  "feed",
  "deadlock",
  "crash",
  "told",
];
const storiesMax = 3;

/** The run in a few lines: what was done, what was broken, what was found. */
export function tableOf({ backend, seed, seconds, ...run }: RunResult): string {
  const found = kinds.map((kind) => `${kind} ${run.violations.filter((one) => one.kind === kind).length}`);
  return [
    `${run.violations.length === 0 ? "ok    " : "FAILED"} ${backend}, seed ${seed}, ${seconds} s`,
    `  mutations  ${run.mutations}: ${listed(run.outcomes)}; ${run.effects} effects at the upstream`,
    `  faults     ${listed(run.faults)}`,
    `  found      ${found.join(", ")}; quiet ${(run.quietAfterMs / 1_000).toFixed(1)} s after the last fault`,
    ...unforeseen(run),
  ].join("\n");
}

function listed(counts: Record<string, number>): string {
  return Object.entries(counts)
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

/** Errors in the logs are no violation, but somebody should have a look. */
function unforeseen({ world }: Pick<RunResult, "world">): string[] {
  const counts: Record<string, number> = {};
  for (const { line } of world.log) {
    const { level, msg = line, err, problem } = parsed(line);
    if (level !== undefined && !badLevels.has(level)) continue;
    const name = `${msg}${err?.message === undefined ? "" : ` (${err.message})`}${problem ? ` ${problem}` : ""}`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return Object.entries(counts)
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, 8)
    .map(([name, count]) => `  logged     ${count} × ${name.slice(0, 160)}`);
}

const badLevels: ReadonlySet<string> = new Set(["error", "fatal"]);

function parsed(line: string): {
  level?: string;
  msg?: string;
  err?: { message?: string };
  problem?: string;
} {
  try {
    return JSON.parse(line) as { msg?: string };
  } catch {
    return {};
  }
}

/** What was found, with the whole story of the first ones. */
export function findingsOf(run: RunResult): string {
  const lines = run.violations.slice(0, 40).map(({ kind, what }) => `  ${kind}: ${what}`);
  const stories = run.violations
    .slice(0, storiesMax)
    .flatMap(({ kind, what, about }) => [
      `\n--- ${kind}: ${what}`,
      ...about.map((queued) => storyOf(queued, run.evidence, run.world)),
    ]);
  const faults = run.timeline.map(({ at, what }) => `  ${new Date(at).toISOString().slice(11, 23)} ${what}`);
  return [...lines, ...stories, "\n--- faults", ...faults].join("\n");
}

/** How to have it again. */
export function replayCommand(run: RunOptions): string {
  const flags = [`--seed ${run.seed}`, `--seconds ${run.seconds}`, `--backend ${run.backend}`];
  for (const name of ["workers", "phones", "hot", "rate"] as const)
    if (run[name] !== defaults[name]) flags.push(`--${name} ${run[name]}`);
  if (run.kinds.join() !== "") flags.push(`--faults "${run.kinds.join()}"`);
  return `npm run test:faults -- ${flags.join(" ")}`;
}
