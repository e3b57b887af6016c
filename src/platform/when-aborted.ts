const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Does `work` when a signal fires that many share, unless it is called off before: what this returns does that. A signal
 * goes through the list of its listeners for each that comes or goes; here it costs the same however many there are.
 *
 * @param signal one that has not fired.
 */
export function whenAborted(signal: AbortSignal, work: () => void): () => void {
  const works = waiting.get(signal) ?? new Set();
  if (!waiting.has(signal)) {
    waiting.set(signal, works);
    signal.addEventListener("abort", () => works.forEach((each) => each()), { once: true });
  }
  // Of its own: the same function may be waiting twice.
  const own = (): void => work();
  works.add(own);
  return () => void works.delete(own);
}
