import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import { clientHint, type Hints } from "../platform/hints.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { QueueBackend } from "../platform/queues.ts";
import type { Database } from "../platform/schema.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { blockedAtStart, drainSlice, type Next } from "./drain.ts";
import { makeDue } from "./due.ts";
import type { Claim } from "./lane.ts";
import { LaneLost, type Slice } from "./slice.ts";
import { createReplayStore, type ReplayStore } from "./store.ts";
import { startSweeper } from "./sweeper.ts";
import { replayQueue, type Wake } from "./wake.ts";

export interface ReplayDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  backend: QueueBackend;
  wake: Wake;
  hints: Hints;
  log: Logger;
  /** Each tenant's primary. */
  primaries: ReadonlyMap<string, Upstream>;
}

export interface ReplayWorker {
  /** Claims nothing more, finishes the calls in flight, gives the lanes back. */
  close(): Promise<void>;
}

/** One slice of a lane: so much that a claim is worth it, so little that one heavy phone starves nobody. */
const sliceMutationsMax = 100;
const sliceTimeMs = 5_000;
/** Calls that hang longer than this at a stop are cut; they are resolved as unclear later. */
const stopGraceMs = 25_000;

/** The lane is not due before this; the job comes back then. */
class LaneDue extends Error {
  readonly dueInMs: number;
  constructor(dueInMs: number) {
    super(`the lane is due in ${Math.round(dueInMs / 1_000)} s`);
    this.dueInMs = dueInMs;
  }
}

/** Starts draining lanes as jobs name them. */
export function startReplayWorker(deps: ReplayDeps): ReplayWorker {
  const { backend, log } = deps;
  const stop = new AbortController();
  const stopping = { now: false };
  const stores = openStores(deps);
  const worker = backend.worker(
    replayQueue,
    async ({ data }) => {
      const { tenantId = "", laneId = "" } = data;
      const next = await drainLane(deps, stores, { tenantId, laneId, signal: stop.signal, stopping });
      if (next === "again") deps.wake(tenantId, laneId);
      else if (next !== "idle") throw new LaneDue(next.dueInMs);
    },
    {
      concurrency: lanesInHand(deps.primaries),
      settings: {
        backoffStrategy: (_attempts, _type, error) => (error instanceof LaneDue ? error.dueInMs : 1_000),
      },
      // A lane is never given up because its workers died.
      maxStalledCount: 2 ** 31 - 1,
      stalledInterval: 15_000,
    },
  );
  const sweeper = startSweeper(deps);
  return {
    async close() {
      stopping.now = true;
      sweeper.stop();
      const cut = setTimeout(() => stop.abort(), stopGraceMs);
      await worker.close();
      clearTimeout(cut);
      log.info("replay has stopped");
    },
  };
}

/** More lanes than calls in flight, so that no call's place idles while outcomes are committed. */
function lanesInHand(primaries: ReadonlyMap<string, Upstream>): number {
  let calls = 0;
  for (const { config } of primaries.values()) calls += config.concurrency;
  return Math.min(512, Math.max(32, 4 * calls));
}

type Stores = Map<string, { store: ReplayStore; upstream: Upstream; leaseMs: number }>;

function openStores({ db, codec, primaries }: ReplayDeps): Stores {
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  return new Map(
    Array.from(primaries, ([tenantId, upstream]) => {
      // A lease outlives a call, a wait for its place, and a renewal that comes late.
      const leaseMs = Math.max(30_000, 3 * upstream.config.timeoutMs);
      return [
        tenantId,
        { upstream, leaseMs, store: createReplayStore(db, tenantId, { codec, owner, leaseMs }) },
      ];
    }),
  );
}

interface Turn {
  tenantId: string;
  laneId: string;
  signal: AbortSignal;
  stopping: { readonly now: boolean };
}

async function drainLane(deps: ReplayDeps, stores: Stores, turn: Turn): Promise<Next> {
  const tenant = stores.get(turn.tenantId);
  if (!tenant || turn.stopping.now) return "idle";
  const claim = await tenant.store.claim(turn.laneId);
  if (!claim) return "idle";
  const log = deps.log.child({ tenantId: turn.tenantId, laneId: turn.laneId, epoch: claim.epoch });
  const slice = toSlice(deps, { ...tenant, claim, log, signal: turn.signal });
  try {
    return await drainSlice(slice, {
      mutationsMax: sliceMutationsMax,
      timeMs: sliceTimeMs,
      isStopping: () => turn.stopping.now,
    });
  } catch (error) {
    if (!(error instanceof LaneLost)) throw error;
    log.info("the lane was taken over");
    return "idle";
  }
}

function toSlice(
  deps: ReplayDeps,
  turn: {
    claim: Claim;
    store: ReplayStore;
    upstream: Upstream;
    leaseMs: number;
    log: Logger;
    signal: AbortSignal;
  },
): Slice {
  const { claim } = turn;
  const { tenantId, clientId } = claim;
  return {
    ...turn,
    leaseUntil: claim.leaseUntil,
    position: claim.position,
    failures: claim.failures,
    blocked: blockedAtStart(claim),
    mapped: new Map(),
    onCommit({ hasOutcome, unblocked }) {
      if (hasOutcome) deps.hints.give(clientHint(tenantId, clientId));
      if (unblocked.length > 0) void unblock(deps, tenantId, unblocked);
    },
  };
}

async function unblock({ db, wake, log }: ReplayDeps, tenantId: string, laneIds: string[]): Promise<void> {
  try {
    await makeDue(db, tenantId, laneIds);
    await Promise.all(laneIds.map((laneId) => wake.now(tenantId, laneId)));
  } catch (error) {
    log.warn({ tenantId, err: error }, "waiting lanes could not be woken; they come back by themselves");
  }
}
