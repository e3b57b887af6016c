import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { stringifyRaw } from "../http/raw-json.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import type { Polled } from "./first-reading.ts";
import type { FeedDeps } from "./pull.ts";
import { shownRecordMembers } from "./schema.ts";
import { takeSnapshot } from "./snapshot.ts";

export interface SnapshotRouteDeps extends FeedDeps {
  /** What of the tenant's primary has to be read before there is a snapshot. */
  polledOf: (tenantId: string) => Polled;
  requireClient: onRequestAsyncHookHandler;
}

const limitMax = 1_000;

const snapshotSchema = {
  operationId: "readSnapshot",
  tags: ["sync"],
  summary: "The records that the reader sees, page by page, and the cursor to follow from",
  description:
    "For a first sync, and after 410 `cursor-expired`. Without `page` a snapshot begins; each answer but the last has the " +
    "`page` to ask for next, and the last has the `cursor`. A record stands once in a snapshot. One that changes while " +
    "it is read may be missing from it, and comes by the cursor, which stands where the snapshot began. Outcomes up to " +
    "there do not come again: ask `/v1/mutations` for those that the client still waits for, once it has the cursor. " +
    "Then follow the cursor to its end, and only then act on the outcomes. " +
    "A page that can't be honoured is 410 `cursor-expired` too: begin again without one.",
  querystring: Type.Object(
    {
      clientId: Type.Optional(uuidQuery("The token's user's own client; without it there are no temp IDs.")),
      page: Type.Optional(Type.String({ description: "From the answer before. Without it: the first." })),
      limit: Type.Integer({
        minimum: 1,
        maximum: limitMax,
        default: 500,
        description: "A page has at most this many records, and may have fewer, or none, with more to come.",
      }),
    },
    { additionalProperties: false },
  ),
  response: {
    200: Type.Object(
      {
        records: Type.Array(
          Type.Object(shownRecordMembers, { additionalProperties: false, description: "As it stands now." }),
        ),
        more: Type.Boolean({ description: "Whether to ask for `page` at once." }),
        page: Type.Optional(Type.String({ description: "Opaque; there when there is more." })),
        cursor: Type.Optional(
          Type.String({ description: "Opaque; there at the end: where to follow from." }),
        ),
      },
      { additionalProperties: false },
    ),
    ...errorAnswers(
      "invalid-request",
      "unauthorized",
      "client-owned",
      "cursor-expired",
      "internal",
      "not-ready",
      "unavailable",
    ),
  },
};

/** `GET /v1/snapshot`: where a phone begins that has no cursor. */
export const snapshotRoutes: FastifyPluginAsyncTypebox<SnapshotRouteDeps> = async (app, deps) => {
  app.get(
    "/v1/snapshot",
    { schema: snapshotSchema, onRequest: deps.requireClient },
    async (request, reply) => {
      const { page, limit } = request.query;
      const clientId = request.query.clientId?.toLowerCase();
      const answer = await takeSnapshot(deps, request.identity, { clientId, page, limit });
      return reply.type("application/json").serializer(stringifyRaw).send(answer);
    },
  );
};
