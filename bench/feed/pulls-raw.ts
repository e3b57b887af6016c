import jwt from "@fastify/jwt";
import Fastify from "fastify";
import { Pool } from "pg";

import { answerParent } from "../child.ts";
import { scopeOf } from "../gateway.ts";
import { jwtSecret } from "../phones.ts";

/** Which tables are asked. */
export type PullsTables = "one" | "gateway";

const queries: Record<PullsTables, string> = {
  one: `select position, entity, id, version, data from change
    where audience = $1 and position > $2 order by position limit $3`,
  gateway: `select f.position, r.entity, r.server_id as id, r.version, convert_from(r.data, 'UTF8')::json as data
    from feed f join record r on r.tenant_id = f.tenant_id and r.entity = f.entity and r.server_id = f.record_id
    where f.tenant_id = 'bench' and f.audience = 's:' || $1::text and f.position > $2
    order by f.position limit $3`,
};

/**
 * What pulls are measured by: a bare Fastify with a token check and one keyset query for one scope, over a table that was
 * made for it or over the gateway's own. A cursor is a number.
 */
answerParent(
  async ({ databaseUrl, tables }: { databaseUrl: string; tables: PullsTables }): Promise<string> => {
    const pool = new Pool({
      connectionString: databaseUrl,
      max: 10,
      options: "-c tidegate.tenant_id=bench",
    });
    const app = Fastify();
    await app.register(jwt, { secret: jwtSecret, verify: { algorithms: ["HS256"] } });
    app.get<{ Querystring: { cursor?: string; limit: string } }>("/v1/changes", async (request) => {
      const { sub } = await request.jwtVerify<{ sub: string }>();
      const { cursor = "0", limit } = request.query;
      const { rows } = await pool.query<{ position: string }>({
        name: "page",
        text: queries[tables],
        values: [scopeOf(sub), cursor, limit],
      });
      return { changes: rows, cursor: rows.at(-1)?.position ?? cursor, more: rows.length === Number(limit) };
    });
    return await app.listen({ host: "127.0.0.1", port: 0 });
  },
);
