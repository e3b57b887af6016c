import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyReply, onRequestAsyncHookHandler } from "fastify";
import { Type } from "typebox";

import { createBell } from "../platform/bell.ts";
import { hungUp } from "../http/hung-up.ts";
import { errorAnswers } from "../http/problem.ts";
import { stringifyRaw } from "../http/raw-json.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import type { FollowerAt, ReadNext } from "./follow.ts";
import { noteRead, placeAfter, placeOf, readPage, toPulled, type FeedDeps } from "./pull.ts";
import type { ChangePage } from "./read.ts";
import { changeReference, cursorSchema } from "./schema.ts";
import type { Waiters } from "./waiters.ts";

export interface FeedRouteDeps extends FeedDeps {
  requireClient: onRequestAsyncHookHandler;
  waiters: Waiters;
  readNext: ReadNext;
  stopping: AbortSignal;
}

const limitMax = 1_000;
export const waitSecondsMax = 25;

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
      limit: Type.Integer({
        minimum: 1,
        maximum: limitMax,
        default: 500,
        description:
          "A page has at most this many changes, not counting records that stand before an outcome because they have changed since.",
      }),
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
    const follower = { identity: request.identity, clientId: request.query.clientId?.toLowerCase() };
    const place = placeOf(deps, follower, cursor);
    const at = { follower, place, limit };
    const page =
      wait === 0
        ? await noted(deps, at, readPage(deps, follower, place, limit))
        : await readWhenChanged(deps, at, { waitMs: wait * 1_000, gone: goneOf(deps, reply) });
    const answer = toPulled(deps, follower, place, page);
    return reply.type("application/json").serializer(stringifyRaw).send(answer);
  });
};

/** Fires when nobody is there any more to be answered, or to answer. */
function goneOf({ stopping }: FeedRouteDeps, reply: FastifyReply): AbortSignal {
  return AbortSignal.any([stopping, hungUp(reply)]);
}

async function noted(deps: FeedRouteDeps, { follower, place }: FollowerAt, reading: Promise<ChangePage>) {
  const page = await reading;
  noteRead(deps, follower, place, page);
  return page;
}

async function readWhenChanged(
  deps: FeedRouteDeps,
  asked: FollowerAt,
  { waitMs, gone }: { waitMs: number; gone: AbortSignal },
): Promise<ChangePage> {
  const { follower, place, limit } = asked;
  const bell = createBell();
  const deadline = performance.now() + waitMs;
  const isOver = (): boolean => gone.aborted || performance.now() >= deadline;
  let at = place;
  // Before the first look, so that what happens during it is not missed.
  const forget = deps.waiters.add({ follower, place: () => at, wake: bell.ring });
  const timer = setTimeout(bell.ring, waitMs + 1);
  gone.addEventListener("abort", bell.ring, { once: true });
  try {
    let page = await noted(deps, asked, readPage(deps, follower, at, limit));
    // A last look at the end: no word of a change may have come.
    for (let isLast = isOver(); !hasNews(page) && !isLast;) {
      at = placeAfter(at, page);
      await bell.heard();
      isLast = isOver();
      page = await noted(deps, asked, deps.readNext({ follower, place: at, limit }));
    }
    return page;
  } finally {
    forget();
    clearTimeout(timer);
    gone.removeEventListener("abort", bell.ring);
  }
}

function hasNews({ changes, more }: ChangePage): boolean {
  return changes.length > 0 || more;
}
