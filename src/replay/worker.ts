import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import type { Announce } from "../change-feed/announce.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { QueueBackend } from "../platform/queues.ts";
import type { Database } from "../platform/schema.ts";
import type { RecordKey } from "../records/record.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { backoffMs } from "./backoff.ts";
import type { Claim } from "./claim.ts";
import { blockedAtStart, drainSlice, type Next, type ReplayEntry } from "./drain.ts";
import { makeDue, type OverdueLane } from "./due.ts";
import { entriesOf } from "./entries.ts";
import { createLeaseKeeper, type LeaseKeeper } from "./lease-keeper.ts";
import type { ReplayMetrics } from "./metrics.ts";
import { LaneLost, type Slice } from "./slice.ts";
import { createReplayStore, type ReplayStore } from "./store.ts";
import { startSweeper } from "./sweeper.ts";
import { createTurns, lanesPerCall, type Turns } from "./turns.ts";
import type { Wake } from "./wake.ts";

/** An upstream whose lanes a worker drains. */
export interface Served {
  tenantId: string;
  upstream: Upstream;
  /** A shadow's lanes. Without them: all of the tenant's clients, of which there is one upstream. */
  laneIds?: readonly string[];
  /** Of a primary: the shadows that follow it. */
  shadowIds?: readonly string[];
  /** What is done with each entry of a lane; by default what the clients of a primary asked for. */
  replay?: ReplayEntry;
}

export interface ReplayDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  backend: QueueBackend;
  /** The queue of the lanes' jobs. */
  queue: string;
  wake: Wake;
  announce: Announce;
  log: Logger;
  served: readonly Served[];
  /** Finds the lanes that nobody woke. */
  readOverdue: (tenantId: string) => Promise<OverdueLane[]>;
  /** Called when a change of a record is committed. */
  onRecord?: (tenantId: string, key: RecordKey) => void;
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
  const posts = openPosts(deps);
  const worker = backend.worker(
    deps.queue,
    async ({ data }) => {
      const { tenantId = "", laneId = "" } = data;
      const next = await drainLane(deps, posts, { tenantId, laneId, signal: stop.signal, stopping });
      if (next === "idle") return;
      if (next.dueInMs > 0) throw new LaneDue(next.dueInMs);
      deps.wake(tenantId, laneId);
    },
    {
      concurrency: lanesInHand(deps.served),
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
      for (const { turns } of posts.all) turns.stop();
      const cut = setTimeout(() => stop.abort(), stopGraceMs);
      await worker.close();
      clearTimeout(cut);
      for (const { leases } of posts.all) leases.stop();
      log.info({ queue: deps.queue }, "replay has stopped");
    },
  };
}

/** A place for every lane that may be in hand: no upstream's lanes take those of another. */
function lanesInHand(served: readonly Served[]): number {
  let calls = 0;
  for (const { upstream } of served) calls += upstream.config.concurrency;
  return Math.min(2_048, Math.max(32, lanesPerCall * calls));
}

/** Where the lanes of one upstream are drained. */
interface Post extends Served {
  store: ReplayStore;
  leases: LeaseKeeper;
  turns: Turns;
  leaseMs: number;
}

interface Posts {
  all: readonly Post[];
  of: (tenantId: string, laneId: string) => Post | undefined;
}

/** A lease is short, so that another worker soon goes on where one died; yet it outlives a call and a late renewal. */
const leaseMsMin = 5_000;

function openPosts({ db, codec, served, wake, announce, log }: ReplayDeps): Posts {
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  const all = served.map((one): Post => {
    const { tenantId, upstream, shadowIds = [] } = one;
    const { id, config } = upstream;
    const leaseMs = Math.max(leaseMsMin, 3 * config.timeoutMs);
    const store = createReplayStore(db, tenantId, {
      codec,
      owner,
      leaseMs,
      upstream: { id, role: config.role, shadowIds },
      announce,
    });
    const turns = createTurns({
      upstream,
      takeBack: (limit) => store.takeBack(id, limit),
      wake: (laneId) => wake(tenantId, laneId),
      log,
    });
    return { ...one, leaseMs, store, turns, leases: createLeaseKeeper(store, { leaseMs, log }) };
  });
  const byLane = new Map(
    all.flatMap((post) => (post.laneIds ?? []).map((laneId) => [laneId, post] as const)),
  );
  const byTenant = new Map(
    all.filter(({ laneIds }) => !laneIds).map((post) => [post.tenantId, post] as const),
  );
  return { all, of: (tenantId, laneId) => byLane.get(laneId) ?? byTenant.get(tenantId) };
}

interface Turn {
  tenantId: string;
  laneId: string;
  signal: AbortSignal;
  stopping: { readonly now: boolean };
}

/** When to look again after a failure that has nothing to do with the upstream. */
const troubled = { baseMs: 1_000, capMs: 60_000 };

async function drainLane(deps: ReplayDeps, posts: Posts, turn: Turn): Promise<Next> {
  const post = posts.of(turn.tenantId, turn.laneId);
  if (!post || turn.stopping.now) return "idle";
  const log = deps.log.child({ tenantId: turn.tenantId, laneId: turn.laneId });
  const isIn = post.turns.enter(turn.laneId);
  try {
    if (!isIn && (await post.store.setAside(turn.laneId))) {
      post.turns.wasSetAside();
      return "idle";
    }
    const claim = await post.store.claim(turn.laneId);
    if (!claim) return "idle";
    if (!("epoch" in claim)) return claim;
    return await drainClaim(deps, post, turn, claim, log.child({ epoch: claim.epoch }));
  } catch (error) {
    // What is thrown into a job is kept with it, and may tell of payload.
    log.error({ err: error }, "a lane could not be claimed");
    return { dueInMs: 1_000 + backoffMs(3, troubled) };
  } finally {
    if (isIn) post.turns.leave();
  }
}

async function drainClaim(
  deps: ReplayDeps,
  post: Post,
  { signal, stopping }: Turn,
  claim: Claim,
  log: Logger,
): Promise<Next> {
  try {
    const slice = toSlice(deps, { ...post, claim, log, signal });
    return await post.leases.keep(slice, () =>
      drainSlice(slice, {
        ...(post.replay && { replay: post.replay }),
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
    await post.store.abandon(claim, dueInMs);
    return { dueInMs };
  }
}

function toSlice(
  deps: ReplayDeps,
  turn: Pick<Slice, "claim" | "store" | "upstream" | "leaseMs" | "log" | "signal"> & Pick<Post, "turns">,
): Slice {
  const { claim, upstream, turns } = turn;
  const { tenantId } = claim;
  return {
    ...turn,
    entries: entriesOf(claim, deps.codec),
    leaseUntil: claim.leaseUntil,
    isLost: false,
    recordClaim: undefined,
    position: claim.position,
    failures: claim.failures,
    blocked: blockedAtStart(claim),
    commands: claim.commands,
    command: undefined,
    hasMore: false,
    recorded: new Set(claim.deliveries.map(({ mutationId }) => mutationId)),
    attempt: undefined,
    mapped: new Map(),
    foreseen: undefined,
    events: {
      setAside: turns.wasSetAside,
      committed({ outcome, record, unblocked }) {
        if (record) deps.onRecord?.(tenantId, record);
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
