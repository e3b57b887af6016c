import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import type { Kysely } from "kysely";
import type { Logger } from "pino";

import type { Announce } from "../change-feed/announce.ts";
import type { RecordWrite } from "../change-feed/write.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { QueueBackend } from "../platform/queues.ts";
import type { Database } from "../platform/schema.ts";
import { startSweeper } from "../replay/sweeper.ts";
import type { Wake } from "../replay/wake.ts";
import { polledEntities } from "../upstream/primary.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { answerLooks, askForPage, type AskDeps, type Tell } from "./ask.ts";
import {
  claimInbound,
  InboundLost,
  readOverdueInbound,
  registerInbound,
  releaseInbound,
  type InboundClaim,
} from "./claim.ts";
import type { InboundMetrics } from "./metrics.ts";

export const pollQueue = "poll";

/** A primary whose own changes are asked for. */
export interface Asked {
  tenantId: string;
  upstream: Upstream;
  hasShadows: boolean;
}

export interface InboundDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  backend: QueueBackend;
  wake: Wake;
  log: Logger;
  asked: readonly Asked[];
  /** Called with the records that others have changed, once that is committed. */
  onRecords: (tenantId: string, records: readonly RecordWrite[]) => void;
  /** Tells who follows the feed what was written to it. */
  announce: Announce;
  metrics: InboundMetrics;
}

export interface InboundWorker {
  /** Asks nothing more, and gives what it has in hand back. */
  close: () => Promise<void>;
}

/** So much at a time that a claim is worth it, so little that one large upstream keeps no other waiting. */
const sliceTimeMs = 5_000;
const leaseMsMin = 15_000;
/** When to look again after a failure that has nothing to do with the upstream. */
const troubledMs = 5_000;

/** The upstream is not due before this; the job comes back then. */
class AskLater extends Error {
  readonly dueInMs: number;
  constructor(dueInMs: number) {
    super(`due in ${Math.ceil(dueInMs / 1_000)} s`);
    this.dueInMs = dueInMs;
  }
}

/** Starts asking primaries for what others change in them, as jobs name them. */
export function startInboundWorker(deps: InboundDeps): InboundWorker {
  const { backend, asked, wake, db, log } = deps;
  const stop = new AbortController();
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  const byName = new Map(asked.map((one) => [`${one.tenantId}/${one.upstream.id}`, one] as const));

  async function work(tenantId: string, upstreamId: string): Promise<number | undefined> {
    const one = byName.get(`${tenantId}/${upstreamId}`);
    if (!one || stop.signal.aborted) return undefined;
    try {
      return await askUpstream(deps, one, owner, stop.signal);
    } catch (error) {
      if (error instanceof InboundLost || stop.signal.aborted) return undefined;
      // What is thrown into a job is kept with it, and may tell of payload.
      log.error({ tenantId, upstream: upstreamId, err: error }, "an upstream could not be asked for changes");
      return troubledMs;
    }
  }

  const worker = backend.worker(
    pollQueue,
    async ({ data: { tenantId = "", laneId = "" } }) => {
      const dueInMs = await work(tenantId, laneId);
      if (dueInMs === undefined) return;
      if (dueInMs > 0) throw new AskLater(dueInMs);
      wake(tenantId, laneId);
    },
    {
      concurrency: Math.min(64, Math.max(1, asked.length)),
      settings: {
        backoffStrategy: (_attempts, _type, error) =>
          error instanceof AskLater ? error.dueInMs : troubledMs,
      },
      // An upstream is never given up because its workers died.
      maxStalledCount: 2 ** 31 - 1,
      stalledInterval: 15_000,
    },
  );
  const begun = new Set<Asked>();
  const sweeper = startSweeper({
    wake,
    log,
    served: asked,
    async readOverdue(tenantId) {
      const own = asked.filter((one) => one.tenantId === tenantId);
      // Each time: a database that was put back to an earlier moment knows nothing of an upstream that is newer.
      for (const one of own) await register(db, one);
      const isNew = own.filter((one) => !begun.has(one));
      for (const one of isNew) begun.add(one);
      const overdue = await readOverdueInbound(
        db,
        tenantId,
        own.map(({ upstream }) => upstream.id),
      );
      return [...isNew.map(({ upstream }) => ({ laneId: upstream.id, overdueMs: 0 })), ...overdue];
    },
  });
  return {
    async close() {
      sweeper.stop();
      stop.abort();
      await worker.close();
    },
  };
}

async function register(db: Kysely<Database>, { tenantId, upstream }: Asked): Promise<void> {
  await registerInbound(db, { tenantId, upstreamId: upstream.id, entities: polledEntities(upstream.config) });
}

/** @returns when the upstream is due again; undefined when another process has it in hand. */
async function askUpstream(
  deps: InboundDeps,
  { tenantId, upstream, hasShadows }: Asked,
  owner: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { db } = deps;
  // A read of a record may follow the wait for a place.
  const leaseMs = Math.max(leaseMsMin, 4 * upstream.config.timeoutMs);
  const claim = await claimInbound(db, { tenantId, upstreamId: upstream.id }, { owner, leaseMs });
  if (!claim) return undefined;
  if (!("epoch" in claim)) return claim.dueInMs;
  const entities = polledEntities(upstream.config);
  const asking: AskDeps = {
    ...deps,
    upstream,
    claim,
    leaseMs,
    signal,
    listed: entities,
    shadows: { areKnown: hasShadows },
    tell: tellerOf(deps, claim),
  };
  let pauseMs = troubledMs;
  try {
    await askInTurns(asking);
    pauseMs = 0;
  } finally {
    const next = await releaseInbound(db, claim, { entities, pauseMs });
    if (next) pauseMs = next.dueInMs;
  }
  return pauseMs;
}

/** What events told of first: somebody waits for it. */
async function askInTurns(asking: AskDeps): Promise<void> {
  const endAt = performance.now() + sliceTimeMs;
  let hasMore = true;
  while (hasMore && !asking.signal.aborted && performance.now() < endAt) {
    const hadLooks = await answerLooks(asking);
    const hadPage = await askForPage(asking);
    hasMore = hadLooks || hadPage;
  }
}

function tellerOf({ log, metrics, onRecords }: InboundDeps, claim: InboundClaim): Tell {
  const { tenantId, upstreamId } = claim;
  const of = { tenantId, upstream: upstreamId };
  return {
    taken({ written, unreadable }) {
      if (written.length > 0) onRecords(tenantId, written);
      metrics.taken(tenantId, upstreamId, { written, unreadable });
      if (unreadable > 0)
        log.warn({ ...of, records: unreadable }, "records could not be mapped; see `fromUpstream`");
    },
    concluded({ entity, kind }, { missing, isDoubtful }) {
      metrics.concluded(tenantId, upstreamId, kind, isDoubtful);
      if (isDoubtful) {
        const facts = { ...of, entity, missing };
        log.error(
          facts,
          "a sweep lacks so many records that the list is in doubt; none was taken for deleted",
        );
      }
    },
    failed({ entity, error: { status, certainty, message: reason }, dueInMs }) {
      metrics.failed(tenantId, upstreamId);
      log.warn(
        { ...of, entity, status, certainty, reason, dueInMs },
        "an upstream could not be asked for changes",
      );
    },
  };
}
