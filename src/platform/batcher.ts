/** Hands one item over and resolves with its result. */
export type Batched<Item, Result> = (item: Item) => Promise<Result>;

/**
 * Makes one call of many: what comes in while a call is under way waits and goes together into the next, so that a
 * busy database gets few large statements and an idle one answers at once.
 *
 * @param run gets the items of one call and resolves with their results in the same order. When it rejects, every
 * item of that call does.
 */
export function createBatcher<Item, Result>(
  run: (items: Item[]) => Promise<Result[]>,
  { itemsMax, callsMax = 1 }: { itemsMax: number; callsMax?: number },
): Batched<Item, Result> {
  type Waiting = { item: Item; resolve: (result: Result) => void; reject: (error: unknown) => void };
  const waiting: Waiting[] = [];
  let calls = 0;

  async function call(batch: Waiting[]): Promise<void> {
    try {
      const results = await run(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  async function drain(): Promise<void> {
    calls++;
    // Items of one turn of the event loop belong together.
    await Promise.resolve();
    while (waiting.length > 0) await call(waiting.splice(0, itemsMax));
    calls--;
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      if (calls < callsMax) void drain();
    });
}
