import fastifyJwt from "@fastify/jwt";
import { createPostgresBackend, Queue } from "bullmq";
import Fastify from "fastify";
import { Redis } from "ioredis";
import { Pool } from "pg";

import { answerParent } from "../child.ts";
import { jwtSecret, type PhoneBatch, type PhoneMutation } from "../phones.ts";

interface Start {
  databaseUrl: string;
  redisUrl: string | undefined;
  /** Of a database with BullMQ's tables, when there is no Redis. */
  queueDatabaseUrl: string;
}

/** The naive design: a row and a BullMQ job for each mutation, those of a batch at the same time. */
answerParent(async ({ databaseUrl, redisUrl, queueDatabaseUrl }: Start): Promise<string> => {
  const pool = new Pool({ connectionString: databaseUrl, max: 16 });
  await pool.query("create table naive_mutation (id uuid primary key, payload text not null)");
  const queue = openQueue(redisUrl, queueDatabaseUrl);
  const app = Fastify({ bodyLimit: 8 * 1024 * 1024 });
  await app.register(fastifyJwt, { secret: jwtSecret, verify: { algorithms: ["HS256"] } });
  app.post<{ Body: PhoneBatch }>("/v1/batches", async (request, reply) => {
    await request.jwtVerify();
    const { mutations } = request.body;
    await Promise.all(mutations.map((mutation) => accept(pool, queue, mutation)));
    return await reply.code(202).send({ accepted: mutations.length });
  });
  return await app.listen({ host: "127.0.0.1", port: 0 });
});

async function accept(pool: Pool, queue: Queue, { id, data }: PhoneMutation): Promise<void> {
  await pool.query({
    name: "insert",
    text: "insert into naive_mutation values ($1, $2)",
    values: [id, JSON.stringify(data)],
  });
  await queue.add("mutation", { id }, { removeOnComplete: true });
}

function openQueue(redisUrl: string | undefined, connectionString: string): Queue {
  if (redisUrl !== undefined) return new Queue("naive", { connection: new Redis(redisUrl) });
  const connection = { connectionString, schema: "bullmq" };
  return new Queue("naive", { connection }, createPostgresBackend as never);
}
