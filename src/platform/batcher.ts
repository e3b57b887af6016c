/** Hands one item over and resolves with its result. */
export type Batched<Item, Result> = (item: Item) => Promise<Result>;

export interface BatcherOptions<Item> {
  itemsMax: number;
  /** Calls at the same time (default 1); a further one begins when it has as many items as are under way. */
  callsMax?: number;
  weight?: { max: number; of: (item: Item) => number };
}

/**
 * Makes one call of many: what comes in while a call is under way waits and goes together into the next, so that a
 * busy database gets few large statements and an idle one answers at once.
 *
 * @param run gets the items of one call and resolves with their results in the same order. When it rejects, every
 * item of that call does.
 * @param options.weight bounds what goes into one call besides the number of items; a heavier item goes alone.
 */
export function createBatcher<Item, Result>(
  run: (items: Item[]) => Promise<Result[]>,
  { itemsMax, callsMax = 1, weight }: BatcherOptions<Item>,
): Batched<Item, Result> {
  type Waiting = { item: Item; resolve: (result: Result) => void; reject: (error: unknown) => void };
  const waiting: Waiting[] = [];
  let calls = 0;
  let itemsInCalls = 0;

  /** A call beside others has to be worth it: small ones at the same time cost more than a larger one after another. */
  function mayCall(others: number): boolean {
    return waiting.length > 0 && (others === 0 || waiting.length >= itemsInCalls);
  }

  async function call(batch: Waiting[]): Promise<void> {
    itemsInCalls += batch.length;
    try {
      const results = await run(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    } finally {
      itemsInCalls -= batch.length;
    }
  }

  function next(): Waiting[] {
    let count = 0;
    for (let left = weight?.max ?? 0; count < Math.min(waiting.length, itemsMax); count++) {
      left -= weight?.of((waiting[count] as Waiting).item) ?? 0;
      if (left < 0 && count > 0) break;
    }
    return waiting.splice(0, count);
  }

  async function drain(): Promise<void> {
    calls++;
    // Items of one turn of the event loop belong together.
    await Promise.resolve();
    while (mayCall(calls - 1)) await call(next());
    calls--;
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      if (calls < callsMax && mayCall(calls)) void drain();
    });
}
