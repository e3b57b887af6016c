import { createPostgresBackend, Queue, Worker, type Processor, type WorkerOptions } from "bullmq";

import { assertDatabaseReachable, reasonOf } from "./database-check.ts";
import { TidegateError } from "./errors.ts";
import { assertRedisReachable, openProducerRedis, openWorkerRedis } from "./redis.ts";

/** A job says where to look. Everything else is in Postgres: no payload. */
export type JobData = Record<string, string>;

export type JobQueue = Queue<JobData, void>;
export type JobWorker = Worker<JobData, void>;
export type WorkerSettings = Omit<WorkerOptions, "connection" | "prefix" | "autorun">;

/** Where BullMQ keeps its jobs. Queues and workers behave alike on both. */
export interface QueueBackend {
  kind: "redis" | "postgres";
  /** The queue of that name; the same one each time. Adding fails, and does not wait, when the backend is away. */
  queue: (name: string) => JobQueue;
  /** Starts a worker, once the backend has answered it. */
  worker: (name: string, processor: Processor<JobData, void>, settings: WorkerSettings) => JobWorker;
  /**
   * Waits until the queues and workers that were opened so far have been answered. On Postgres, one that was not never
   * will be, and the process has to start anew.
   * @throws {TidegateError} `database-unreachable`
   */
  ready: () => Promise<void>;
  /** Waits for the jobs in work, then closes all workers, queues and connections. */
  close: () => Promise<void>;
}

export interface QueueBackendOptions {
  /** Undefined: the jobs are in the database. */
  redisUrl: string | undefined;
  /** The service's connection string. */
  databaseUrl: string;
  /** Called with the errors of connections, which recover by themselves. */
  onError: (error: Error) => void;
}

/**
 * Opens the queues' backend once it answers.
 * @throws {TidegateError} `redis-unreachable` or `database-unreachable`, within seconds.
 */
export async function openQueueBackend(options: QueueBackendOptions): Promise<QueueBackend> {
  if (options.redisUrl === undefined) {
    await assertDatabaseReachable(options.databaseUrl);
    return onPostgres(options.databaseUrl, options.onError);
  }
  await assertRedisReachable(options.redisUrl);
  return onRedis(options.redisUrl, options.onError);
}

function onRedis(url: string, onError: (error: Error) => void): QueueBackend {
  const producer = openProducerRedis(url, onError);
  const consumer = openWorkerRedis(url, onError);
  const { queue, worker, closeAll } = track(
    (name) => new Queue(name, { connection: producer, prefix: prefixOf(name) }),
    (name, processor, settings) =>
      new Worker(name, processor, { ...settings, connection: consumer, prefix: prefixOf(name) }),
    onError,
  );
  const close = async (): Promise<void> => {
    // A polite goodbye to a Redis that is away would wait until it is back.
    await closeAll({ force: consumer.status !== "ready" });
    producer.disconnect();
    consumer.disconnect();
  };
  // What is opened on Redis waits for it by itself.
  return { kind: "redis", queue, worker, ready: () => Promise.resolve(), close };
}

/** A hash tag for each queue: on a cluster all keys of a queue, and no more than that, share a slot. */
function prefixOf(queueName: string): string {
  return `{tidegate:${queueName}}`;
}

/** Connections of each queue and each worker; a worker has one more, to listen on. One with few jobs at a time needs few. */
const queuePoolMax = 4;
const workerPoolMax = 8;
const connectionsBesidesJobs = 2;

function onPostgres(connectionString: string, onError: (error: Error) => void): QueueBackend {
  const connection = { connectionString, schema: "bullmq", application_name: "tidegate-queues" };
  const answers: Promise<unknown>[] = [];
  const answered = (opened: JobQueue | JobWorker): Promise<unknown> => {
    const answer = opened.waitUntilReady();
    answer.catch(onError);
    answers.push(answer);
    return answer;
  };
  const { queue, worker, closeAll } = track(
    (name) => {
      const options = { connection: { ...connection, max: queuePoolMax } };
      const opened = new Queue(name, options, createPostgresBackend) as unknown as JobQueue;
      void answered(opened);
      return opened;
    },
    (name, processor, settings) => {
      const options = {
        ...settings,
        connection: {
          ...connection,
          max: Math.min(workerPoolMax, (settings.concurrency ?? 1) + connectionsBesidesJobs),
        },
        autorun: false,
      };
      const opened = new Worker(name, processor, options, createPostgresBackend) as unknown as JobWorker;
      // Without it a worker would ask again and again, in one turn of the event loop.
      void answered(opened)
        .then(
          () => opened.run(),
          () => undefined,
        )
        .catch(onError);
      return opened;
    },
    onError,
  );
  const ready = async (): Promise<void> => {
    await Promise.all(answers).catch((error: unknown) => {
      const why = `Postgres did not answer the queues: ${reasonOf(error)}`;
      throw new TidegateError("database-unreachable", why, { cause: error });
    });
  };
  return { kind: "postgres", queue, worker, ready, close: async () => await closeAll({ force: false }) };
}

type OpenQueue = (name: string) => JobQueue;
type OpenWorker = QueueBackend["worker"];

/** Opens each queue once, and remembers what has to be closed. */
function track(openQueue: OpenQueue, openWorker: OpenWorker, onError: (error: Error) => void) {
  const queues = new Map<string, JobQueue>();
  const workers: JobWorker[] = [];
  const queue: OpenQueue = (name) => {
    const known = queues.get(name);
    if (known) return known;
    const opened = openQueue(name);
    opened.on("error", onError);
    queues.set(name, opened);
    return opened;
  };
  const worker: OpenWorker = (...args) => {
    const opened = openWorker(...args);
    opened.on("error", onError);
    workers.push(opened);
    return opened;
  };
  const closeAll = async ({ force }: { force: boolean }): Promise<void> => {
    await Promise.all(workers.map(async (opened) => await opened.close(force)));
    await Promise.all([...queues.values()].map(async (opened) => await opened.close()));
  };
  return { queue, worker, closeAll };
}
