import fastifyJwt from "@fastify/jwt";
import Fastify from "fastify";
import { Pool } from "pg";

import { answerParent } from "../child.ts";
import { jwtSecret, type PhoneBatch } from "../phones.ts";

/**
 * The floor of ingest: what any durable acceptance of a batch costs at least. A bare Fastify, a token check, and one
 * insert of all rows in one transaction; no order, no duplicates, no client, no schema.
 */
answerParent(async ({ databaseUrl }: { databaseUrl: string }): Promise<string> => {
  const pool = new Pool({ connectionString: databaseUrl, max: 16 });
  await pool.query("create table floor_mutation (id uuid primary key, payload text not null)");
  const app = Fastify({ bodyLimit: 8 * 1024 * 1024 });
  await app.register(fastifyJwt, { secret: jwtSecret, verify: { algorithms: ["HS256"] } });
  app.post<{ Body: PhoneBatch }>("/v1/batches", async (request, reply) => {
    await request.jwtVerify();
    const { mutations } = request.body;
    await pool.query({
      name: "insert",
      text: "insert into floor_mutation select * from unnest($1::uuid[], $2::text[])",
      values: [mutations.map(({ id }) => id), mutations.map(({ data }) => JSON.stringify(data))],
    });
    return await reply.code(202).send({ accepted: mutations.length });
  });
  return await app.listen({ host: "127.0.0.1", port: 0 });
});
