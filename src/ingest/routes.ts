import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import type { Registry } from "prom-client";
import { Type } from "typebox";

import { cursorExpired } from "../change-feed/cursor.ts";
import { pullChanges, type FeedDeps } from "../change-feed/pull.ts";
import { waitSecondsMax } from "../change-feed/routes.ts";
import { changeReference, cursorSchema } from "../change-feed/schema.ts";
import { hungUp } from "../http/hung-up.ts";
import type { Identity } from "../http/identity.ts";
import { preferredWaitSeconds } from "../http/prefer.ts";
import { errorAnswers, toProblem } from "../http/problem.ts";
import { stringifyRaw } from "../http/raw-json.ts";
import { IdMappingSchema, mutationResultReference } from "../inbox/result-schema.ts";
import type { Config, TenantConfig } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { primaryOf } from "../upstream/primary.ts";
import { judgeBatch } from "./batch.ts";
import { BatchEnvelope } from "./envelope.ts";
import { createLossCounter } from "./metrics.ts";
import { takeUpload, type Receipt, type UploadDeps } from "./upload.ts";

export interface IngestDeps extends Omit<UploadDeps, "onLoss">, FeedDeps {
  config: Pick<Config, "tenants" | "limits">;
  fingerprintSecrets: string[];
  requireClient: onRequestAsyncHookHandler;
  metrics: Registry;
  /** Aborted when the process begins to stop. */
  stopping: AbortSignal;
}

const ReceiptSchema = Type.Object(
  {
    ackedSeq: Type.Integer({ description: "Everything up to here is durable." }),
    results: Type.Array(mutationResultReference, {
      description: "One for each mutation, in the batch's order.",
    }),
    idMappings: Type.Array(IdMappingSchema),
    epoch: Type.String({
      description: "Opaque; when it changes, the server was restored: ask with an empty batch.",
    }),
    changes: Type.Optional(Type.Array(changeReference)),
    cursor: Type.Optional(cursorSchema),
    more: Type.Optional(Type.Boolean()),
    cursorProblem: Type.Optional(Type.Unsafe<object>({ $ref: "Problem#" })),
  },
  { additionalProperties: false },
);

const uploadSchema = {
  operationId: "uploadBatch",
  tags: ["sync"],
  summary: "Hand over mutations from the outbox",
  description:
    "200: every mutation has its final outcome. 202: not yet. Both mean that all of it is durable. Any other answer " +
    "but 503 means that nothing of it was taken; after 503 or none it is not known, and the same is sent again. `Prefer: wait=N` (at most 25) waits N seconds for outcomes. A mutation that another " +
    "client of the user has sent before is answered with what is recorded; it stays that client's, and only that client's " +
    "changes tell its outcome. Who has become a new client after `sequence-reused` therefore asks `/v1/mutations/{id}` for " +
    "what was `pending` or `parked`.",
  headers: Type.Object({ prefer: Type.Optional(Type.String({ description: "`wait=N`, RFC 7240" })) }),
  body: BatchEnvelope,
  response: {
    200: ReceiptSchema,
    202: ReceiptSchema,
    ...errorAnswers(
      "invalid-request",
      "unauthorized",
      "client-owned",
      "sequence-gap",
      "sequence-reused",
      "request-too-large",
      "unsupported-media-type",
      "internal",
      "unavailable",
    ),
  },
};

/** `POST /v1/batches`: judge, make durable, wake, wait. */
export const ingestRoutes: FastifyPluginAsyncTypebox<IngestDeps> = async (app, deps) => {
  const onLoss = createLossCounter(deps.metrics, Object.keys(deps.config.tenants));
  const uploading: UploadDeps = { ...deps, onLoss };
  app.post("/v1/batches", { schema: uploadSchema, onRequest: deps.requireClient }, async (request, reply) => {
    const { identity, body } = request;
    const { id: upstreamId, upstream } = primaryOf(tenantOf(deps, identity));
    const { fingerprintSecrets, config } = deps;
    const judged = judgeBatch(
      { entities: upstream.entities, limits: config.limits, fingerprintSecrets },
      body,
      request.bodyText,
    );
    const seconds = preferredWaitSeconds(request.headers.prefer, waitSecondsMax);
    const receipt = await takeUpload(uploading, identity, body, judged, {
      upstreamId,
      requestId: request.id,
      waitMs: (seconds ?? 0) * 1_000,
      giveUp: seconds ? AbortSignal.any([deps.stopping, hungUp(reply)]) : deps.stopping,
    });
    if (seconds !== undefined) reply.header("preference-applied", `wait=${seconds}`);
    const answer = {
      ...toAnswer(receipt),
      epoch: deps.epoch(),
      ...(await changesAfter(deps, identity, body)),
    };
    return reply
      .code(receipt.allFinal ? 200 : 202)
      .type("application/json")
      .serializer(stringifyRaw)
      .send(answer);
  });
};

function tenantOf({ config }: IngestDeps, { tenantId }: Identity): TenantConfig {
  const tenant = config.tenants[tenantId];
  if (!tenant) throw new Error("a token of a tenant that is not configured was accepted");
  return tenant;
}

function toAnswer({ ackedSeq, results, idMappings }: Receipt) {
  return { ackedSeq, results, idMappings };
}

/** The batch is durable by now: whatever happens to the changes, or is wrong with the cursor, never fails the upload. */
async function changesAfter(deps: IngestDeps, identity: Identity, { clientId, cursor }: BatchEnvelope) {
  if (cursor === undefined || cursor === null) return {};
  try {
    if (typeof cursor !== "string") throw cursorExpired("It is not text.");
    return await pullChanges(deps, identity, { clientId: clientId.toLowerCase(), cursor, limit: 500 });
  } catch (error) {
    if (error instanceof TidegateError) return { cursorProblem: toProblem(error) };
    deps.log.warn({ err: error }, "the changes after an upload could not be read");
    const problem = new TidegateError("unavailable", "The changes can't be read at the moment.");
    return { cursorProblem: toProblem(problem) };
  }
}
