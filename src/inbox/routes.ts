import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import type { Kysely } from "kysely";
import { Type } from "typebox";

import { assertOwnClient } from "../clients/client.ts";
import { errorAnswers } from "../http/problem.ts";
import { stringifyRaw } from "../http/raw-json.ts";
import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { mutationResultReference, uuidQuery } from "./result-schema.ts";
import { toResults } from "./result-view.ts";
import { readKnown, readKnownAfter } from "./results.ts";
import { refusedAmong, type OnTold } from "./told.ts";

export interface MutationRouteDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  requireClient: onRequestAsyncHookHandler;
  onTold: OnTold;
}

const limitMax = 1_000;

const listSchema = {
  operationId: "listMutations",
  tags: ["sync"],
  summary: "The outcomes of a client's mutations, in its own order",
  querystring: Type.Object(
    {
      clientId: uuidQuery("The token's user's own client."),
      afterSeq: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, default: 0 }),
      limit: Type.Integer({ minimum: 1, maximum: limitMax, default: 500 }),
    },
    { additionalProperties: false },
  ),
  response: {
    200: Type.Object(
      {
        results: Type.Array(mutationResultReference),
        more: Type.Boolean({ description: "Whether to ask again, after the last seq." }),
      },
      { additionalProperties: false },
    ),
    ...errorAnswers("invalid-request", "unauthorized", "client-owned", "internal", "unavailable"),
  },
};

const oneSchema = {
  operationId: "readMutation",
  tags: ["sync"],
  summary: "The outcome of one of the user's mutations",
  params: Type.Object({ id: uuidQuery("The mutation's id.") }),
  response: {
    200: mutationResultReference,
    ...errorAnswers("invalid-request", "unauthorized", "not-found", "internal", "unavailable"),
  },
};

/** `GET /v1/mutations` and `/v1/mutations/{id}`: what became of what a client has sent. */
export const mutationRoutes: FastifyPluginAsyncTypebox<MutationRouteDeps> = async (app, deps) => {
  const { db, codec, requireClient, onTold } = deps;

  app.get("/v1/mutations", { schema: listSchema, onRequest: requireClient }, async (request, reply) => {
    const { identity, query } = request;
    const { tenantId, userId } = identity;
    const client = { tenantId, clientId: query.clientId.toLowerCase() };
    const list = await inTenant(db, tenantId, async (trx) => {
      await assertOwnClient(trx, client, userId);
      const known = await readKnownAfter(trx, client, { afterSeq: query.afterSeq, limit: query.limit + 1 });
      const page = known.slice(0, query.limit);
      const results = await toResults(trx, identity, page, codec);
      return { page, results, more: known.length > query.limit };
    });
    onTold(tenantId, refusedAmong(list.page));
    return reply
      .type("application/json")
      .serializer(stringifyRaw)
      .send({ results: list.results, more: list.more });
  });

  app.get("/v1/mutations/:id", { schema: oneSchema, onRequest: requireClient }, async (request, reply) => {
    const { identity } = request;
    const { tenantId, userId } = identity;
    const id = request.params.id.toLowerCase();
    const results = await inTenant(db, tenantId, async (trx) => {
      const known = (await readKnown(trx, tenantId, [id])).get(id);
      if (known?.userId !== userId) throw new TidegateError("not-found", "There is no such mutation.");
      onTold(tenantId, refusedAmong([known]));
      return await toResults(trx, identity, [known], codec);
    });
    return reply
      .type("application/json")
      .serializer(stringifyRaw)
      .send(results[0] ?? {});
  });
};
