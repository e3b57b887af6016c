/** For one who waits: a ring is heard once, also one that came before anybody listened. */
export interface Bell {
  ring: () => void;
  /** Resolves at the next ring, or at once if it has rung since the last time. */
  heard: () => Promise<void>;
}

export function createBell(): Bell {
  let hasRung = false;
  let answer: (() => void) | undefined;
  return {
    ring() {
      hasRung = true;
      answer?.();
    },
    async heard() {
      if (!hasRung) await new Promise<void>((resolve) => void (answer = resolve));
      answer = undefined;
      hasRung = false;
    },
  };
}
