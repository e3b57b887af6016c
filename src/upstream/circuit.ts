/**
 * One upstream's breaker: spares a dead upstream the calls and the callers the waiting.
 *
 *     closed ──failures in a row──▶ open ──cooldown over──▶ half-open ──probe succeeds──▶ closed, ramping 1, 2, 4, 8 …
 *                                    ▲                          │
 *                                    └───────probe fails────────┘
 *
 * A call that was let in before the last change of state no longer counts: it speaks of an earlier time.
 */
export interface Circuit {
  state(): CircuitState;
  /** The wait until the next probe; 0 when a call may try now. */
  retryAfterMs(): number;
  /** Calls in flight that the recovery allows at the moment; Infinity once recovered. */
  inFlightMax(): number;
  /** What it would let in at the moment, by itself. */
  admits(): Admission;
  /** Lets a call in, or returns undefined. Every passage must be ended by exactly one of its three functions. */
  enter(): Passage | undefined;
  /** Opens now, whatever the count says. */
  trip(): void;
}

export interface Admission {
  /** 0 while it is open; Infinity when it is closed and has recovered. */
  calls: number;
  /** The one call finds out whether the upstream is back. */
  isProbe: boolean;
}

export type CircuitState = "closed" | "open" | "half-open";

/** How a call that was let in ended. */
export interface Passage {
  /** The upstream answered; also when it refused this call's data. */
  succeeded(): void;
  /** The upstream or our access to it failed. @param retryAfterMs what the upstream asked for, if it did. */
  failed(retryAfterMs?: number): void;
  /** Says nothing about the upstream: the caller stopped before the call was sent. */
  abandoned(): void;
}

export interface CircuitOptions {
  /** Failures in a row that open it. */
  failures: number;
  cooldownMs: number;
  /** Where the ramp ends and calls are no longer counted. */
  rampMax: number;
  /** Monotonic milliseconds. */
  now?: () => number;
  onChange?: (state: CircuitState) => void;
}

const PROBE_WAIT_MS = 1000;

export function createCircuit({
  failures,
  cooldownMs,
  rampMax,
  now = () => performance.now(),
  onChange = () => undefined,
}: CircuitOptions): Circuit {
  let state: CircuitState = "closed";
  let period = 0;
  let failuresInRow = 0;
  let openUntil = 0;
  let probing = false;
  let allowance = Infinity;
  let succeededAtAllowance = 0;

  function change(next: CircuitState): void {
    state = next;
    period++;
    failuresInRow = 0;
    probing = false;
    onChange(next);
  }

  function open(waitMs: number): void {
    openUntil = now() + waitMs;
    change("open");
  }

  function setAllowance(next: number): void {
    allowance = next > rampMax ? Infinity : next;
    succeededAtAllowance = 0;
  }

  function onSuccess(): void {
    failuresInRow = 0;
    if (state === "half-open") {
      change("closed");
      setAllowance(1);
    } else if (++succeededAtAllowance >= allowance) setAllowance(allowance * 2);
  }

  function onFailure(retryAfterMs: number): void {
    failuresInRow++;
    if (state === "half-open" || failuresInRow >= failures) open(Math.max(cooldownMs, retryAfterMs));
    else if (allowance !== Infinity) setAllowance(1);
  }

  function passage(): Passage {
    const entered = period;
    const ifCurrent = (work: () => void) => () => {
      if (entered === period) work();
    };
    return {
      succeeded: ifCurrent(onSuccess),
      failed: (retryAfterMs = 0) => ifCurrent(() => onFailure(retryAfterMs))(),
      abandoned: ifCurrent(() => {
        probing = false;
      }),
    };
  }

  return {
    state: () => state,
    retryAfterMs() {
      if (state === "open") return Math.max(0, openUntil - now());
      return probing ? PROBE_WAIT_MS : 0;
    },
    inFlightMax: () => allowance,
    admits() {
      if (state === "closed") return { calls: allowance, isProbe: false };
      const isOver = state === "half-open" || now() >= openUntil;
      return { calls: isOver && !probing ? 1 : 0, isProbe: true };
    },
    enter() {
      if (state === "open" && now() >= openUntil) change("half-open");
      if (state === "open" || probing) return undefined;
      probing = state === "half-open";
      return passage();
    },
    trip: () => open(cooldownMs),
  };
}
