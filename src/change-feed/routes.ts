import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import { Type } from "typebox";

import { clientHint, type Hints } from "../platform/hints.ts";
import { hungUp } from "../http/hung-up.ts";
import { errorAnswers } from "../http/problem.ts";
import { stringifyRaw } from "../http/raw-json.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import { pullChanges, type FeedDeps, type Pulled } from "./pull.ts";
import { changeReference, cursorSchema } from "./schema.ts";

export interface FeedRouteDeps extends FeedDeps {
  requireClient: onRequestAsyncHookHandler;
  hints: Hints;
  stopping: AbortSignal;
}

const limitMax = 1_000;
export const waitSecondsMax = 25;
/** At most this long between looks for what another process writes. */
const lookIntervalMs = 1_000;

const changesSchema = {
  operationId: "readChanges",
  tags: ["sync"],
  summary: "What has changed after a cursor, oldest first",
  querystring: Type.Object(
    {
      clientId: Type.Optional(
        uuidQuery("The token's user's own client; without it there are no outcomes and no temp IDs."),
      ),
      cursor: Type.Optional(
        Type.String({ description: "Where the last page ended. Without it: from the beginning." }),
      ),
      limit: Type.Integer({ minimum: 1, maximum: limitMax, default: 500 }),
      wait: Type.Integer({
        minimum: 0,
        maximum: waitSecondsMax,
        default: 0,
        description: "Seconds to wait for a first change.",
      }),
    },
    { additionalProperties: false },
  ),
  response: {
    200: Type.Object(
      {
        changes: Type.Array(changeReference),
        cursor: cursorSchema,
        more: Type.Boolean({ description: "Whether to ask again at once." }),
      },
      { additionalProperties: false },
    ),
    ...errorAnswers(
      "invalid-request",
      "unauthorized",
      "client-owned",
      "cursor-expired",
      "internal",
      "unavailable",
    ),
  },
};

/** `GET /v1/changes`: the feed, by cursor. */
export const feedRoutes: FastifyPluginAsyncTypebox<FeedRouteDeps> = async (app, deps) => {
  app.get("/v1/changes", { schema: changesSchema, onRequest: deps.requireClient }, async (request, reply) => {
    const { cursor, limit, wait } = request.query;
    const clientId = request.query.clientId?.toLowerCase();
    const deadline = performance.now() + wait * 1_000;
    const giveUp = AbortSignal.any([deps.stopping, hungUp(reply)]);
    const hint = clientHint(request.identity.tenantId, clientId ?? "");
    const page = await pullWhenChanged(deps.hints, giveUp, deadline, hint, () =>
      pullChanges(deps, request.identity, { clientId, cursor, limit }),
    );
    return reply.type("application/json").serializer(stringifyRaw).send(page);
  });
};

async function pullWhenChanged(
  hints: Hints,
  giveUp: AbortSignal,
  deadline: number,
  hintKey: string,
  pull: () => Promise<Pulled>,
): Promise<Pulled> {
  for (;;) {
    const leftMs = deadline - performance.now();
    // Asked for before the look, so that what happens during it is not missed.
    const hint = hints.next(hintKey, Math.max(0, Math.min(leftMs, lookIntervalMs)), giveUp);
    const page = await pull();
    if (page.changes.length > 0 || page.more || leftMs <= 0 || giveUp.aborted) return page;
    await hint;
  }
}
