import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import type { Kysely } from "kysely";
import { Type } from "typebox";

import { assertOwnClient } from "../clients/client.ts";
import { errorAnswers } from "../http/problem.ts";
import { IdMappingSchema, uuidQuery } from "../inbox/result-schema.ts";
import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { toTempId } from "../platform/uuid.ts";
import { readMappings } from "./id-map.ts";

export interface IdMapRouteDeps {
  db: Kysely<Database>;
  requireClient: onRequestAsyncHookHandler;
}

const schema = {
  operationId: "listIdMappings",
  tags: ["sync"],
  summary: "What a client's temp IDs became",
  querystring: Type.Object(
    { clientId: uuidQuery("The token's user's own client.") },
    { additionalProperties: false },
  ),
  response: {
    200: Type.Object({ idMappings: Type.Array(IdMappingSchema) }, { additionalProperties: false }),
    ...errorAnswers("invalid-request", "unauthorized", "client-owned", "internal", "unavailable"),
  },
};

/** `GET /v1/id-mappings`: for a phone that has lost what it was told. */
export const idMapRoutes: FastifyPluginAsyncTypebox<IdMapRouteDeps> = async (app, { db, requireClient }) => {
  app.get("/v1/id-mappings", { schema, onRequest: requireClient }, async ({ identity, query }) => {
    const { tenantId, userId } = identity;
    const client = { tenantId, clientId: query.clientId.toLowerCase() };
    const mappings = await inTenant(db, tenantId, async (trx) => {
      await assertOwnClient(trx, client, userId);
      return await readMappings(trx, client);
    });
    return { idMappings: mappings.map((mapping) => ({ ...mapping, tempId: toTempId(mapping.tempId) })) };
  });
};
