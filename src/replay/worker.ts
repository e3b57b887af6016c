import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import { clientHint, type Hints } from "../platform/hints.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { QueueBackend } from "../platform/queues.ts";
import type { Database } from "../platform/schema.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { backoffMs } from "./backoff.ts";
import { blockedAtStart, drainSlice, type Next } from "./drain.ts";
import { makeDue } from "./due.ts";
import { entriesOf, type Claim } from "./lane.ts";
import { createLeaseKeeper, type LeaseKeeper } from "./lease-keeper.ts";
import type { ReplayMetrics } from "./metrics.ts";
import { LaneLost, type Slice } from "./slice.ts";
import { createReplayStore, type ReplayStore } from "./store.ts";
import { startSweeper } from "./sweeper.ts";
import { createTurns, lanesPerCall, type Turns } from "./turns.ts";
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
  metrics: ReplayMetrics;
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
    super(`the lane is due in ${Math.ceil(dueInMs / 1_000)} s`);
    this.dueInMs = dueInMs;
  }
}

/** Starts draining lanes as jobs name them. */
export function startReplayWorker(deps: ReplayDeps): ReplayWorker {
  const { backend, log } = deps;
  const stop = new AbortController();
  const stopping = { now: false };
  const tenants = openTenants(deps);
  const worker = backend.worker(
    replayQueue,
    async ({ data }) => {
      const { tenantId = "", laneId = "" } = data;
      const next = await drainLane(deps, tenants, { tenantId, laneId, signal: stop.signal, stopping });
      if (next === "idle") return;
      if (next.dueInMs > 0) throw new LaneDue(next.dueInMs);
      deps.wake(tenantId, laneId);
    },
    {
      concurrency: lanesInHand(deps.primaries),
      settings: {
        backoffStrategy: (_attempts, _type, error) =>
          error instanceof LaneDue ? Math.ceil(error.dueInMs) : 1_000,
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
      for (const { turns } of tenants.values()) turns.stop();
      const cut = setTimeout(() => stop.abort(), stopGraceMs);
      await worker.close();
      clearTimeout(cut);
      for (const { leases } of tenants.values()) leases.stop();
      log.info("replay has stopped");
    },
  };
}

/** A place for every lane that may be in hand: no upstream's lanes take those of another. */
function lanesInHand(primaries: ReadonlyMap<string, Upstream>): number {
  let calls = 0;
  for (const { config } of primaries.values()) calls += config.concurrency;
  return Math.min(2_048, Math.max(32, lanesPerCall * calls));
}

interface Tenant {
  upstream: Upstream;
  store: ReplayStore;
  leases: LeaseKeeper;
  turns: Turns;
  leaseMs: number;
}

/** A lease is short, so that another worker soon goes on where one died; yet it outlives a call and a late renewal. */
const leaseMsMin = 5_000;

function openTenants({ db, codec, primaries, wake, log }: ReplayDeps): Map<string, Tenant> {
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  return new Map(
    Array.from(primaries, ([tenantId, upstream]) => {
      const leaseMs = Math.max(leaseMsMin, 3 * upstream.config.timeoutMs);
      const store = createReplayStore(db, tenantId, { codec, owner, leaseMs });
      const turns = createTurns({
        upstream,
        takeBack: (limit) => store.takeBack(upstream.id, limit),
        wake: (laneId) => wake(tenantId, laneId),
        log,
      });
      return [
        tenantId,
        { upstream, leaseMs, store, turns, leases: createLeaseKeeper(store, { leaseMs, log }) },
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

/** When to look again after a failure that has nothing to do with the upstream. */
const troubled = { baseMs: 1_000, capMs: 60_000 };

async function drainLane(deps: ReplayDeps, tenants: Map<string, Tenant>, turn: Turn): Promise<Next> {
  const tenant = tenants.get(turn.tenantId);
  if (!tenant || turn.stopping.now) return "idle";
  const log = deps.log.child({ tenantId: turn.tenantId, laneId: turn.laneId });
  const isIn = tenant.turns.enter();
  try {
    if (!isIn && (await tenant.store.setAside(turn.laneId))) {
      tenant.turns.wasSetAside();
      return "idle";
    }
    const claim = await tenant.store.claim(turn.laneId);
    if (!claim) return "idle";
    if (!("epoch" in claim)) return claim;
    return await drainClaim(deps, tenant, turn, claim, log.child({ epoch: claim.epoch }));
  } catch (error) {
    // What is thrown into a job is kept with it, and may tell of payload.
    log.error({ err: error }, "a lane could not be claimed");
    return { dueInMs: 1_000 + backoffMs(3, troubled) };
  } finally {
    if (isIn) tenant.turns.leave();
  }
}

async function drainClaim(
  deps: ReplayDeps,
  tenant: Tenant,
  { signal, stopping }: Turn,
  claim: Claim,
  log: Logger,
): Promise<Next> {
  try {
    const slice = toSlice(deps, { ...tenant, claim, log, signal });
    return await tenant.leases.keep(slice, () =>
      drainSlice(slice, {
        mutationsMax: sliceMutationsMax,
        timeMs: sliceTimeMs,
        isStopping: () => stopping.now,
      }),
    );
  } catch (error) {
    if (error instanceof LaneLost) {
      log.info("the lane was taken over");
      return "idle";
    }
    log.error({ err: error }, "a slice of a lane failed");
    const dueInMs = Math.max(50, backoffMs(claim.failures + 1, troubled));
    await tenant.store.abandon(claim, dueInMs);
    return { dueInMs };
  }
}

function toSlice(
  deps: ReplayDeps,
  turn: Pick<Slice, "claim" | "store" | "upstream" | "leaseMs" | "log" | "signal">,
): Slice {
  const { claim, upstream } = turn;
  const { tenantId, clientId } = claim;
  return {
    ...turn,
    entries: entriesOf(claim, deps.codec),
    leaseUntil: claim.leaseUntil,
    isLost: false,
    position: claim.position,
    failures: claim.failures,
    blocked: blockedAtStart(claim),
    recorded: new Set(claim.deliveries.map(({ mutationId }) => mutationId)),
    attempt: undefined,
    mapped: new Map(),
    events: {
      committed({ outcome, unblocked }) {
        if (outcome) deps.hints.give(clientHint(tenantId, clientId));
        if (outcome?.isNew) deps.metrics.settled(tenantId, upstream.id, outcome.status);
        if (unblocked.length > 0) void unblock(deps, tenantId, unblocked);
      },
      failed: (disposition) => deps.metrics.failed(tenantId, upstream.id, disposition),
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
