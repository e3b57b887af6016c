import { Redis } from "ioredis";

import { TidegateError } from "./errors.ts";

const connectTimeoutMs = 5000;
/** What a producer waits for an answer. A wake is best effort: the sweeper finds the lane that missed one. */
const commandTimeoutMs = 5000;

const common = {
  connectTimeout: connectTimeoutMs,
  keepAlive: 10_000,
  retryStrategy: (attempt: number) => Math.min(100 * 2 ** attempt, 5000),
};

/** A connection whose commands fail at once while Redis is away, instead of waiting for it. */
export function openProducerRedis(url: string, onError: (error: Error) => void): Redis {
  const impatient = { enableOfflineQueue: false, maxRetriesPerRequest: 1, commandTimeout: commandTimeoutMs };
  return heard(new Redis(url, { ...common, ...impatient }), onError);
}

/** A connection that waits for Redis to come back, as BullMQ's workers require. */
export function openWorkerRedis(url: string, onError: (error: Error) => void): Redis {
  return heard(new Redis(url, { ...common, maxRetriesPerRequest: null }), onError);
}

function heard(redis: Redis, onError: (error: Error) => void): Redis {
  redis.on("error", onError);
  return redis;
}

/**
 * Connects once, so that a start against an absent Redis fails within seconds and names it.
 * @throws {TidegateError} `redis-unreachable` with host, port and the reason; never the password.
 */
export async function assertRedisReachable(url: string): Promise<void> {
  if (!/^rediss?:\/\//.test(url) || !URL.canParse(url)) {
    throw new TidegateError("redis-unreachable", "REDIS_URL is not valid: it looks like redis://host:6379.");
  }
  const redis = new Redis(url, {
    ...common,
    lazyConnect: true,
    // A Redis that is up but answers nothing takes two seconds more, for the connection to be given up.
    commandTimeout: 3000,
    retryStrategy: () => null,
  });
  // The reason is in the event; what `connect` throws only says that the connection is closed.
  let reason: Error | undefined;
  redis.on("error", (error: Error) => (reason ??= error));
  try {
    await redis.connect();
    await redis.ping();
  } catch (error) {
    const { host, port } = redis.options;
    const { message } = reason ?? (error as Error);
    throw new TidegateError("redis-unreachable", `Redis at ${host}:${port} can't be reached: ${message}`);
  } finally {
    redis.disconnect();
  }
}
