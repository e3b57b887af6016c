import type { Logger } from "pino";

import type { Upstream } from "../upstream/upstream.ts";

/**
 * Whose turn it is at one upstream. A lane is taken in hand only when the upstream can do with another one; the others
 * are put aside in the database, and their turn comes in the order in which they were due. So a dead upstream costs a
 * probe now and then whatever number of lanes waits for it, and its lanes take no place that another's could use.
 */
export interface Turns {
  /** Takes a place for a lane in hand; false when there is none. Every place that was taken must be given back. */
  enter: (laneId: string) => boolean;
  leave: () => void;
  /** Somebody was put aside, and is looked for as soon as there is a place. */
  wasSetAside: () => void;
  stop: () => void;
}

export interface TurnsDeps {
  upstream: Pick<Upstream, "config" | "admits">;
  /** Takes back so many of the lanes that were put aside, and resolves with them in their order. */
  takeBack: (limit: number) => Promise<string[]>;
  wake: (laneId: string) => void;
  log: Logger;
}

/** More lanes in hand than calls in flight, so that no call's place idles while outcomes are committed. */
export const lanesPerCall = 4;

/**
 * A lane that was taken back is on its way for so long at most. Taken for one in hand meanwhile, it keeps the place that
 * it was taken back for; after that, its word was lost, or another process's worker has it.
 */
const onTheWayMs = 2_000;

/** Between two looks while lanes are known to be aside, and while none is: another process may have put one aside. */
const pauseMs = { busy: 100, idle: 5_000 };

export function createTurns({ upstream, takeBack, wake, log }: TurnsDeps): Turns {
  let inHand = 0;
  let isStopped = false;
  let timer: NodeJS.Timeout | undefined;
  let looksAt = Infinity;
  /** Until when lanes are on their way, in the order of these times. */
  const onTheWay = new Map<string, number>();

  function room(): number {
    const admitted = upstream.admits();
    // Nobody else should come with a probe.
    const perCall = admitted.isProbe ? 1 : lanesPerCall;
    const lanes = perCall * Math.min(admitted.calls, upstream.config.concurrency);
    return Math.max(0, lanes - inHand);
  }

  function forgetLost(): void {
    for (const [laneId, until] of onTheWay) {
      if (until > performance.now()) return;
      onTheWay.delete(laneId);
    }
  }

  async function look(): Promise<number> {
    forgetLost();
    const limit = room() - onTheWay.size;
    if (limit <= 0) return pauseMs.busy;
    const lanes = await takeBack(limit);
    for (const laneId of lanes) {
      onTheWay.delete(laneId);
      onTheWay.set(laneId, performance.now() + onTheWayMs);
      wake(laneId);
    }
    return lanes.length === 0 ? pauseMs.idle : pauseMs.busy;
  }

  function lookAfter(ms: number): void {
    const at = performance.now() + ms;
    // Many are put aside at once; they must not put the look off.
    if (isStopped || at >= looksAt) return;
    clearTimeout(timer);
    looksAt = at;
    timer = setTimeout(() => void lookAndGoOn(), ms);
  }

  async function lookAndGoOn(): Promise<void> {
    looksAt = Infinity;
    let nextMs = pauseMs.idle;
    try {
      nextMs = await look();
    } catch (error) {
      log.warn({ err: error }, "lanes that were put aside could not be taken back; the next look will");
    }
    lookAfter(nextMs);
  }

  lookAfter(pauseMs.busy);
  return {
    enter(laneId) {
      forgetLost();
      onTheWay.delete(laneId);
      if (room() <= onTheWay.size) return false;
      inHand++;
      return true;
    },
    leave() {
      inHand--;
    },
    wasSetAside: () => lookAfter(pauseMs.busy),
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
