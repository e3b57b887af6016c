import { parentPort, workerData } from "node:worker_threads";

import { createEvaluate, type Evaluated, type Evaluation, type EvaluationBounds } from "./evaluate.ts";

export type FromThread = "ready" | Evaluated;

/** A thread that evaluates what it is sent and answers in the same order. First it says that it is ready. */
const evaluate = createEvaluate(workerData as EvaluationBounds);
let last: Promise<void> = Promise.resolve();

parentPort?.on("message", (evaluation: Evaluation) => {
  last = last.then(async () => parentPort?.postMessage(await evaluate(evaluation)));
});
parentPort?.postMessage("ready" satisfies FromThread);
