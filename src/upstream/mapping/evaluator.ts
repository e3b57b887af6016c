import { Worker } from "node:worker_threads";

import type { FromThread } from "./evaluation-thread.ts";
import type { Evaluated, Evaluation, EvaluationBounds } from "./evaluate.ts";

export interface EvaluatorBounds extends EvaluationBounds {
  /** Of one evaluation, whatever it does. Much longer than `timeoutMs`: that one's error tells the place. */
  hardTimeoutMs: number;
  /** Of the thread, for all that it holds. */
  memoryMiBMax: number;
  /** A thread with nothing to do for so long is ended. */
  idleMs: number;
}

export const evaluatorBounds: EvaluatorBounds = {
  timeoutMs: 1_000,
  hardTimeoutMs: 5_000,
  depthMax: 500,
  sequenceMax: 100_000,
  resultCharsMax: 8 * 1024 * 1024,
  memoryMiBMax: 128,
  idleMs: 60_000,
};

/**
 * Evaluates expressions in a thread of its own, in the order in which they are asked for, so that none can hold up the
 * process. The thread is started by the first and replaced when it breaks a bound, which costs those behind it time only.
 */
export interface Evaluator {
  /** @throws {Error} when there is no thread to be had, or it was closed: nothing is said of the expression. */
  evaluate(evaluation: Evaluation): Promise<Evaluated>;
  /** What is not evaluated yet fails. */
  close(): Promise<void>;
}

interface Asked {
  evaluation: Evaluation;
  answer: (evaluated: Evaluated) => void;
  fail: (error: Error) => void;
}

export function openEvaluator(given: Partial<EvaluatorBounds> = {}): Evaluator {
  const bounds = { ...evaluatorBounds, ...given };
  /** The first is with the thread, or about to be; the thread has the others in its queue. */
  const asked: Asked[] = [];
  let thread: Worker | undefined;
  let limit: NodeJS.Timeout | undefined;
  let idle: NodeJS.Timeout | undefined;
  let isReady = false;
  let isClosed = false;

  /** The time of the first begins again: it is another one, or has another thread. */
  function watch(): void {
    clearTimeout(idle);
    if (asked.length > 0) return void (limit = limit?.refresh() ?? setTimeout(look, bounds.hardTimeoutMs));
    clearTimeout(limit);
    limit = undefined;
    idle = setTimeout(() => void end(), bounds.idleMs).unref();
  }

  /** The answer may have come while this process itself was held up: it is heard before the timer is believed. */
  function look(): void {
    const [late] = asked;
    setImmediate(() => {
      if (late !== undefined && asked[0] === late) replace(`it took more than ${bounds.hardTimeoutMs} ms`);
      else if (asked.length > 0) watch();
    });
  }

  function replace(problem: string): void {
    void end();
    asked.shift()?.answer({ problem });
    if (asked.length > 0) start();
  }

  function start(): void {
    const own = startThread(bounds);
    thread = own;
    isReady = false;
    own.on("message", (message: FromThread) => {
      if (thread !== own) return;
      // What the thread's start takes is nobody's fault, and counts for none.
      if (message === "ready") isReady = true;
      else asked.shift()?.answer(message);
      watch();
    });
    own.on("error", (error: NodeJS.ErrnoException) => {
      if (thread !== own) return;
      if (error.code === "ERR_WORKER_OUT_OF_MEMORY")
        return replace(`it needed more than ${bounds.memoryMiBMax} MiB`);
      if (isReady) return replace("its thread ended");
      // No expression was begun, so none is to blame: who asked may ask again.
      void end();
      for (const { fail } of asked.splice(0)) fail(error);
    });
    for (const { evaluation } of asked) own.postMessage(evaluation);
  }

  async function end(): Promise<void> {
    const ended = thread;
    thread = undefined;
    clearTimeout(idle);
    clearTimeout(limit);
    limit = undefined;
    await ended?.terminate();
  }

  return {
    evaluate(evaluation) {
      if (isClosed) return Promise.reject(new Error("the evaluator is closed"));
      return new Promise((answer, fail) => {
        asked.push({ evaluation, answer, fail });
        if (thread === undefined) return start();
        thread.postMessage(evaluation);
        if (isReady && asked.length === 1) watch();
      });
    },
    async close() {
      isClosed = true;
      for (const { fail } of asked.splice(0)) fail(new Error("the evaluator was closed"));
      await end();
    },
  };
}

/** It keeps no process alive, and knows nothing of this one's environment. */
function startThread({ memoryMiBMax, ...bounds }: EvaluatorBounds): Worker {
  const started = new Worker(new URL("./evaluation-thread.ts", import.meta.url), {
    workerData: bounds,
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: memoryMiBMax, maxYoungGenerationSizeMb: 16 },
  });
  started.unref();
  return started;
}
