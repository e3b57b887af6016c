import { expect, test } from "vitest";

import { createBatcher } from "./batcher.ts";

/** A call that ends when it is told to; what came in meanwhile is in `calls`. */
function controlled() {
  const calls: { items: number[]; end: () => void; fail: (error: Error) => void }[] = [];
  const run = async (items: number[]): Promise<number[]> =>
    await new Promise((resolve, reject) => {
      calls.push({ items, end: () => resolve(items.map((item) => item * 10)), fail: reject });
    });
  return { calls, run };
}

const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));
const itemsOf = ({ calls }: ReturnType<typeof controlled>): number[][] => calls.map(({ items }) => items);

test("what comes in during a call goes together into the next, and each gets its own result", async () => {
  const work = controlled();
  const batched = createBatcher(work.run, { itemsMax: 3 });
  const results = [1, 2].map(batched);
  await turn();
  results.push(...[3, 4, 5, 6].map(batched));
  await turn();
  expect(itemsOf(work)).toEqual([[1, 2]]);
  for (const index of [0, 1, 2]) {
    work.calls[index]?.end();
    await turn();
  }
  expect(itemsOf(work)).toEqual([[1, 2], [3, 4, 5], [6]]);
  expect(await Promise.all(results)).toEqual([10, 20, 30, 40, 50, 60]);
});

test("a further call begins only when it has as many items as are under way", async () => {
  const work = controlled();
  const batched = createBatcher(work.run, { itemsMax: 10, callsMax: 2 });
  const results = [1, 2].map(batched);
  await turn();
  results.push(batched(3));
  await turn();
  expect(itemsOf(work)).toEqual([[1, 2]]);
  results.push(batched(4));
  await turn();
  expect(itemsOf(work)).toEqual([
    [1, 2],
    [3, 4],
  ]);
  results.push(batched(5));
  work.calls[0]?.end();
  await turn();
  expect(itemsOf(work)).toHaveLength(2);
  work.calls[1]?.end();
  await turn();
  work.calls[2]?.end();
  expect(await Promise.all(results)).toEqual([10, 20, 30, 40, 50]);
});

test("a call takes no more weight than it may, and a heavier item goes alone", async () => {
  const work = controlled();
  const batched = createBatcher(work.run, { itemsMax: 10, weight: { max: 10, of: (item) => item } });
  const results = [4, 6, 1, 50, 2].map(batched);
  for (const index of [0, 1, 2, 3]) {
    await turn();
    work.calls[index]?.end();
  }
  await Promise.all(results);
  expect(itemsOf(work)).toEqual([[4, 6], [1], [50], [2]]);
});

test("a call that fails fails its items, and the next goes on", async () => {
  const work = controlled();
  const batched = createBatcher(work.run, { itemsMax: 10 });
  const failed = batched(1).catch((error: Error) => error.message);
  await turn();
  const next = batched(2);
  work.calls[0]?.fail(new Error("away"));
  await turn();
  work.calls[1]?.end();
  expect(await failed).toBe("away");
  expect(await next).toBe(20);
});
