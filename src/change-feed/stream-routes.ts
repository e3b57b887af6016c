import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyReply, onRequestAsyncHookHandler } from "fastify";
import type { Registry } from "prom-client";
import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import type { Config } from "../platform/config/schema.ts";
import { cursorSigner } from "./cursor.ts";
import { retryText } from "./event-text.ts";
import type { ReadNext } from "./follow.ts";
import { claimsOf, noteRead, placeOf, readPage, type FeedDeps, type Follower } from "./pull.ts";
import { createStream, firstLimit, type StreamOptions } from "./stream.ts";
import { createStreams } from "./streams.ts";
import type { Waiters } from "./waiters.ts";

export interface StreamRouteDeps extends FeedDeps {
  requireClient: onRequestAsyncHookHandler;
  config: Pick<Config, "follow">;
  waiters: Waiters;
  readNext: ReadNext;
  metrics: Registry;
  stopping: AbortSignal;
}

const streamSchema = {
  operationId: "streamChanges",
  tags: ["sync"],
  summary: "The same as server-sent events, as they happen",
  description:
    "Each `change` event has one change, as in `changes` of `/v1/changes`, and as its `id` the cursor after it. With " +
    "`hint=true` there are only `cursor` events: something has changed up to this cursor; ask `/v1/changes` from your own. " +
    "A stream that breaks off is resumed by `Last-Event-ID`, which wins over `cursor`, also at another process; a change may " +
    "come again then. A comment comes every 15 s. An `end` event says why the stream ends: `token-expired` (come back with " +
    "another token), `stopping` (come back), `replaced` (the client, or too many of the user, has opened another one; stay " +
    "away), `cursor-expired` (take a snapshot), `client-owned`, `slow-reader` (30 s were not enough for one write, 64 KiB or a change; come back). Who takes " +
    "nothing for 5 s more is cut off without it.",
  headers: Type.Object({
    "last-event-id": Type.Optional(Type.String({ description: "The `id` of the last event that was read." })),
  }),
  querystring: Type.Object(
    {
      clientId: Type.Optional(
        uuidQuery("The token's user's own client; without it there are no outcomes and no temp IDs."),
      ),
      cursor: Type.Optional(
        Type.String({ description: "Where to go on from. Without it: from the beginning." }),
      ),
      hint: Type.Boolean({ default: false, description: "Send cursors only." }),
    },
    { additionalProperties: false },
  ),
  response: {
    200: {
      description: "The stream.",
      content: { "text/event-stream": { schema: Type.String() } },
    },
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

/** `GET /v1/changes/stream`: the feed as server-sent events. */
export const streamRoutes: FastifyPluginAsyncTypebox<StreamRouteDeps> = async (app, deps) => {
  const streams = createStreams({ ...deps, config: deps.config.follow, log: app.log });
  deps.stopping.addEventListener("abort", streams.stop, { once: true });
  app.addHook("onClose", () => streams.stop());
  const route = { schema: streamSchema, onRequest: deps.requireClient, exposeHeadRoute: false };
  app.get("/v1/changes/stream", route, async (request, reply) => {
    streams.assertRoom();
    const { identity, log } = request;
    const { hint: isHint } = request.query;
    const follower = { identity, clientId: request.query.clientId?.toLowerCase() };
    const place = placeOf(deps, follower, request.headers["last-event-id"] ?? request.query.cursor);
    const first = await readPage(deps, follower, place, firstLimit({ isHint }));
    streams.assertRoom();
    if (reply.raw.destroyed) return reply.hijack();
    const stream = createStream({
      follower,
      place,
      isHint,
      raw: reply.raw,
      readNext: async (at) => await deps.readNext({ follower, ...at }),
      signAt: signerOf(deps, follower),
      // What a connection has taken was not read yet: only the cursor that the client came with says so.
      onTell: (page) => noteRead(deps, follower, place, page),
      onError: (err) => log.warn({ err }, "an event stream could not read; it tries again"),
      onEnd: (reason) => streams.remove(stream, reason),
    });
    begin(reply);
    streams.add(stream);
    // What happened since the first page was read had nobody to wake.
    stream.wake();
    void stream.run(first);
    return reply;
  });
};

/** Those who are cut off together do not come back together. */
const retryMs = { min: 1_000, max: 5_000 };

function begin(reply: FastifyReply): void {
  reply.hijack();
  reply.raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    // nginx would gather what comes.
    "x-accel-buffering": "no",
  });
  reply.raw.write(retryText(retryMs.min + Math.random() * (retryMs.max - retryMs.min)));
}

function signerOf({ cursorSecrets }: FeedDeps, follower: Follower): StreamOptions["signAt"] {
  let signer: { epoch: string; sign: ReturnType<typeof cursorSigner> } | undefined;
  return ({ epoch, ...place }) => {
    if (signer?.epoch !== epoch)
      signer = { epoch, sign: cursorSigner(cursorSecrets, claimsOf(follower, epoch)) };
    return signer.sign(place);
  };
}
