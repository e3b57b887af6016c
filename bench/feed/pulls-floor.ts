import jwt from "@fastify/jwt";
import Fastify from "fastify";
import { Pool } from "pg";

import { answerParent } from "../child.ts";
import { scopeOf } from "../gateway.ts";
import { jwtSecret } from "../phones.ts";

/**
 * The floor of pulls: a bare Fastify with a token check and one keyset query over one table. Nothing is joined, and a cursor
 * is a number.
 */
answerParent(async ({ databaseUrl }: { databaseUrl: string }): Promise<string> => {
  const pool = new Pool({ connectionString: databaseUrl, max: 10 });
  const app = Fastify();
  await app.register(jwt, { secret: jwtSecret, verify: { algorithms: ["HS256"] } });
  app.get<{ Querystring: { cursor?: string; limit: string } }>("/v1/changes", async (request) => {
    const { sub } = await request.jwtVerify<{ sub: string }>();
    const { cursor = "0", limit } = request.query;
    const { rows } = await pool.query<{ position: string }>({
      name: "page",
      text: `select position, entity, id, version, data from change
        where audience = $1 and position > $2 order by position limit $3`,
      values: [scopeOf(sub), cursor, limit],
    });
    return { changes: rows, cursor: rows.at(-1)?.position ?? cursor, more: rows.length === Number(limit) };
  });
  return await app.listen({ host: "127.0.0.1", port: 0 });
});
