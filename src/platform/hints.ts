/**
 * Word that something may have changed. Only a hint: it may get lost, and may be given for nothing, so whoever waits also
 * looks for itself now and then.
 */
export interface Hints {
  /** Wakes everybody who waits for one of the keys, each once. */
  give(keys: Iterable<string>): void;
  /** Wakes everybody: words were lost, and nobody knows which. */
  giveAll(): void;
  /** Calls `wake` at every hint for one of the keys until the returned function is called. */
  watch(keys: readonly string[], wake: () => void): () => void;
  /** Resolves at the next hint for one of the keys, after `timeoutMs`, or when the signal fires. Never rejects. */
  next(keys: readonly string[], timeoutMs: number, signal?: AbortSignal): Promise<void>;
}

export function createHints(): Hints {
  const waiting = new Map<string, Set<() => void>>();

  function watch(keys: readonly string[], wake: () => void): () => void {
    for (const key of keys) {
      const wakers = waiting.get(key);
      if (wakers) wakers.add(wake);
      else waiting.set(key, new Set([wake]));
    }
    return () => {
      for (const key of keys) {
        const wakers = waiting.get(key);
        wakers?.delete(wake);
        if (wakers?.size === 0) waiting.delete(key);
      }
    };
  }

  return {
    watch,
    give(keys) {
      wakeAll([...keys].flatMap((key) => waiting.get(key) ?? []));
    },
    giveAll() {
      wakeAll(waiting.values());
    },
    next(keys, timeoutMs, signal) {
      return new Promise((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", wake);
          unwatch();
          resolve();
        };
        const timer = setTimeout(wake, timeoutMs);
        const unwatch = watch(keys, wake);
        if (signal?.aborted) wake();
        else signal?.addEventListener("abort", wake, { once: true });
      });
    },
  };
}

function wakeAll(sets: Iterable<Set<() => void>>): void {
  const woken = new Set<() => void>();
  for (const wakers of sets) for (const wake of wakers) woken.add(wake);
  for (const wake of woken) wake();
}
