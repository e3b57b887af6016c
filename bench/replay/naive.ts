import { createPostgresBackend, Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

import { answerParent } from "../child.ts";
import type { Phone, PhoneMutation } from "../phones.ts";
import { openCalls } from "./calls.ts";

export type NaiveRequest = { redisUrl: string | undefined; queueDatabaseUrl: string } & (
  | { kind: "fill"; phones: Phone[] }
  /** Resolves when the worker is running; the upstream's journal tells when it is done. */
  | { kind: "work"; upstreamUrl: string; concurrency: number }
);

/** The naive design: one BullMQ job for each mutation, so many at a time; nothing keeps a phone's jobs in order. */
answerParent(async (request: NaiveRequest): Promise<null> => {
  if (request.kind === "fill") await fill(request);
  else await work(request);
  return null;
});

async function fill(request: Extract<NaiveRequest, { kind: "fill" }>): Promise<void> {
  const queue = openQueue(request);
  for (const { batches } of request.phones) {
    const mutations = batches.flatMap((batch) => batch.mutations);
    await queue.addBulk(
      mutations.map((data) => ({ name: "mutation", data, opts: { removeOnComplete: true } })),
    );
  }
  await queue.close();
}

async function work(request: Extract<NaiveRequest, { kind: "work" }>): Promise<void> {
  const { upstreamUrl, concurrency, redisUrl, queueDatabaseUrl } = request;
  const calls = openCalls(upstreamUrl, concurrency);
  // In memory, which no real worker could rely on: it makes the contender faster than it would be.
  const ids = new Map<string, string>();
  const process = async ({ data }: { data: PhoneMutation }): Promise<void> => {
    // An update that did not wait for its create has no ID to go to; the upstream's journal counts it as out of order.
    const id = ids.get(data.recordId) ?? encodeURIComponent(data.recordId);
    ids.set(data.recordId, await calls.send(data, id));
  };
  const worker =
    redisUrl === undefined
      ? new Worker<PhoneMutation>(
          "naive",
          process,
          { concurrency, connection: onPostgres(queueDatabaseUrl) },
          createPostgresBackend as never,
        )
      : new Worker<PhoneMutation>("naive", process, {
          concurrency,
          connection: new Redis(redisUrl, { maxRetriesPerRequest: null }),
        });
  await worker.waitUntilReady();
}

function openQueue({ redisUrl, queueDatabaseUrl }: NaiveRequest): Queue {
  if (redisUrl !== undefined) return new Queue("naive", { connection: new Redis(redisUrl) });
  return new Queue("naive", { connection: onPostgres(queueDatabaseUrl) }, createPostgresBackend as never);
}

function onPostgres(connectionString: string) {
  return { connectionString, schema: "bullmq" };
}
