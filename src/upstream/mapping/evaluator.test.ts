import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Worker } from "node:worker_threads";

import { describe, expect, onTestFinished, test } from "vitest";

import type { Evaluated } from "./evaluate.ts";
import { openEvaluator, type Evaluator, type EvaluatorBounds } from "./evaluator.ts";

/** Backtracks for longer than the universe is old. */
const hostile = { expression: "$contains(text, /^(a+)+$/)", text: `{"text":"${"a".repeat(60)}!"}` };
const endless = "($f := function($n) { $f($n + 1) }; $f(0))";

function anEvaluator(bounds: Partial<EvaluatorBounds> = {}): Evaluator {
  const evaluator = openEvaluator({ timeoutMs: 100, hardTimeoutMs: 1_000, ...bounds });
  onTestFinished(async () => await evaluator.close());
  return evaluator;
}

async function evaluated(evaluator: Evaluator, expression: string, text = "{}"): Promise<Evaluated> {
  return await evaluator.evaluate({ expression, text, variables: {} });
}

describe("evaluation is bounded", () => {
  test.for([
    ["in steps", endless, /D1012/],
    ["in depth", "($f := function($n) { 1 + $f($n + 1) }; $f(0))", /D1011/],
    ["in size", "$count([1..9000000])", /D2015/],
    ["in what it gives", '$pad("", 3000)', /more than 2000 characters/],
    ["in one step that goes on and on", hostile.expression, /more than 1000 ms/],
    ["in the length of one text", '$pad("", 100000000000)', /^the expression failed$/],
    ["in memory", '$map([1..100000], function($n) { $pad($string($n), 100000) ~> $split("") })', /MiB/],
  ] as const)("%s", async ([name, expression, problem]) => {
    const evaluator = anEvaluator({
      resultCharsMax: 2_000,
      memoryMiBMax: 32,
      // So that the memory is out first.
      ...(name === "in memory" && { timeoutMs: 60_000, hardTimeoutMs: 60_000 }),
    });
    const { text } = hostile;
    expect(await evaluator.evaluate({ expression, text, variables: {} })).toEqual({
      problem: expect.stringMatching(problem) as string,
    });
    expect(await evaluated(evaluator, "1+1")).toEqual({ text: "2" });
  });
});

test("while one goes on and on, this process does other things", async () => {
  const evaluator = anEvaluator();
  const stuck = evaluator.evaluate({ ...hostile, variables: {} });
  let turns = 0;
  const turning = setInterval(() => turns++, 1);
  await stuck;
  clearInterval(turning);
  expect(turns).toBeGreaterThan(10);
});

test("what waits behind one that is stopped gets its own result, in order", async () => {
  const evaluator = anEvaluator();
  const ended: string[] = [];
  const ask = async (expression: string, text?: string): Promise<Evaluated> => {
    const result = await evaluated(evaluator, expression, text);
    ended.push(JSON.stringify(result));
    return result;
  };
  await Promise.all([
    ask("n", '{"n":1}'),
    ask(hostile.expression, hostile.text),
    ask("n", '{"n":2}'),
    ask(hostile.expression, hostile.text),
    ask("n", '{"n":3}'),
  ]);
  const stopped = '{"problem":"it took more than 1000 ms"}';
  expect(ended).toEqual(['{"text":"1"}', stopped, '{"text":"2"}', stopped, '{"text":"3"}']);
});

test("two evaluators don't wait for each other", async () => {
  const [one, other] = [anEvaluator({ hardTimeoutMs: 600_000 }), anEvaluator()];
  const stuck = one.evaluate({ ...hostile, variables: {} }).catch((error: Error) => error.message);
  expect(await evaluated(other, "1+1")).toEqual({ text: "2" });
  await one.close();
  expect(await stuck).toBe("the evaluator was closed");
});

test("a thread that had nothing to do was ended, and the next question starts another", async () => {
  const started: Worker[] = [];
  const onStart = (message: unknown): void => void started.push((message as { worker: Worker }).worker);
  subscribe("worker_threads", onStart);
  onTestFinished(() => void unsubscribe("worker_threads", onStart));
  const evaluator = anEvaluator({ idleMs: 1 });
  expect(await evaluated(evaluator, "1+1")).toEqual({ text: "2" });
  // The thread has this ID when it has ended.
  await expect.poll(() => started[0]?.threadId, { timeout: 10_000 }).toBe(-1);
  expect(await evaluated(evaluator, "2+2")).toEqual({ text: "4" });
  expect(started).toHaveLength(2);
});

test("an expression sees nothing of the process: neither its environment nor its globals", async () => {
  const evaluator = anEvaluator();
  for (const expression of ["process.env", "$process", "$globalThis", "constructor.constructor"])
    expect(await evaluated(evaluator, expression)).toEqual({ problem: "the mapping gave nothing" });
});
