import type { FastifyBaseLogger } from "fastify";
import { Counter, Gauge, type Registry } from "prom-client";

import { TidegateError } from "../platform/errors.ts";
import type { FollowConfig } from "../platform/config/schema.ts";
import type { Stream, StreamEnd } from "./stream.ts";
import type { Waiters } from "./waiters.ts";

/** The streams of this process. */
export interface Streams {
  /** @throws {TidegateError} `unavailable` when there are as many as may be. */
  assertRoom: () => void;
  /** From now on it is woken, kept alive, and ended when it is time. A client's earlier stream ends. */
  add: (stream: Stream) => void;
  remove: (stream: Stream, reason: StreamEnd) => void;
  /** Ends all. */
  stop: () => void;
}

/** Of one user, with and without clients; a new one ends the oldest. */
const perUserMax = 10;
const tickMs = 1_000;

export interface StreamsOptions {
  waiters: Waiters;
  config: FollowConfig;
  log: FastifyBaseLogger;
  metrics: Registry;
}

/** One timer looks after all of them. */
export function createStreams({ waiters, config, log, metrics }: StreamsOptions): Streams {
  const open = new Map<Stream, { forget: () => void; openedAtMs: number }>();
  const byUser = new Map<string, Set<Stream>>();
  const ended = registerMetrics(metrics, () => open.size);
  let isStopped = false;

  function tick(): void {
    const now = performance.now();
    for (const stream of open.keys()) {
      if (Date.now() >= stream.follower.identity.expiresAtMs) stream.end("token-expired");
      else if (now - (stream.fullSinceMs() ?? now) > config.stalledMs) stream.end("slow-reader");
      else stream.keepAlive(config.commentEveryMs);
    }
  }
  const timer = setInterval(tick, Math.min(tickMs, config.commentEveryMs, config.stalledMs));
  timer.unref();

  function makeRoom({ follower: { identity, clientId } }: Stream, own: Set<Stream>): void {
    const same = [...own].filter((other) => clientId !== undefined && other.follower.clientId === clientId);
    const oldest = [...own].slice(0, Math.max(0, own.size - perUserMax + 1));
    for (const stream of new Set([...same, ...oldest])) stream.end("replaced");
    if (same.length > 0)
      log.debug({ tenantId: identity.tenantId, clientId }, "a client has opened another event stream");
  }

  return {
    assertRoom() {
      if (isStopped) throw new TidegateError("unavailable", "The gateway is stopping.");
      if (open.size < config.streamsMax) return;
      throw new TidegateError("unavailable", "There are as many event streams as this process may have.");
    },
    add(stream) {
      const user = userOf(stream);
      makeRoom(stream, byUser.get(user) ?? new Set());
      open.set(stream, { forget: waiters.add(stream), openedAtMs: performance.now() });
      byUser.set(user, (byUser.get(user) ?? new Set()).add(stream));
    },
    remove(stream, reason) {
      const entry = open.get(stream);
      if (!entry) return;
      entry.forget();
      open.delete(stream);
      const own = byUser.get(userOf(stream));
      own?.delete(stream);
      if (own?.size === 0) byUser.delete(userOf(stream));
      ended.inc({ reason });
      const { identity, clientId } = stream.follower;
      const seconds = Math.round((performance.now() - entry.openedAtMs) / 1_000);
      log.info({ tenantId: identity.tenantId, clientId, reason, seconds }, "an event stream has ended");
    },
    stop() {
      isStopped = true;
      clearInterval(timer);
      for (const stream of open.keys()) stream.end("stopping");
    },
  };
}

function userOf({ follower: { identity } }: Stream): string {
  return `${identity.tenantId}/${identity.userId}`;
}

function registerMetrics(registry: Registry, count: () => number): Counter<"reason"> {
  registry.registerMetric(
    new Gauge({
      name: "tidegate_streams_open",
      help: "Event streams that are open.",
      registers: [],
      collect() {
        this.set(count());
      },
    }),
  );
  return new Counter({
    name: "tidegate_streams_ended_total",
    help: "Event streams that have ended, by why.",
    labelNames: ["reason"],
    registers: [registry],
  });
}
