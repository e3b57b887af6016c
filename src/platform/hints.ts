/**
 * In-process word that something may have changed. Only a hint: whoever waits also looks for itself now and then, since
 * the change may come from another process.
 */
export interface Hints {
  /** Wakes everybody who waits for `key`. */
  give(key: string): void;
  /** Resolves at the next hint for `key`, after `timeoutMs`, or when the signal fires. Never rejects. */
  next(key: string, timeoutMs: number, signal?: AbortSignal): Promise<void>;
}

export function createHints(): Hints {
  const waiting = new Map<string, Set<() => void>>();
  return {
    give(key) {
      for (const wake of waiting.get(key) ?? []) wake();
    },
    next(key, timeoutMs, signal) {
      return new Promise((resolve) => {
        const wakers = waiting.get(key) ?? new Set();
        const wake = () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", wake);
          wakers.delete(wake);
          if (wakers.size === 0 && waiting.get(key) === wakers) waiting.delete(key);
          resolve();
        };
        const timer = setTimeout(wake, timeoutMs);
        waiting.set(key, wakers.add(wake));
        if (signal?.aborted) wake();
        else signal?.addEventListener("abort", wake, { once: true });
      });
    },
  };
}

/** The key under which a client's outcomes are announced. */
export function clientHint(tenantId: string, clientId: string): string {
  return `${tenantId}/${clientId}`;
}
