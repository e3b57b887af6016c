import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyBaseLogger } from "fastify";
import type { Kysely } from "kysely";

import type { RequireOps } from "../http/ops-auth.ts";
import type { Problem } from "../http/problem.ts";
import { problemOf } from "../inbox/result-view.ts";
import type { Config } from "../platform/config/schema.ts";
import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, StoredProblem } from "../platform/schema.ts";
import type { Wake } from "../replay/wake.ts";
import { primaryOf } from "../upstream/primary.ts";
import { commandMutation, lookAtLane, type Given } from "./give-command.ts";
import { readMutationFile, type MutationFile } from "./mutation-file.ts";
import { commandSchema, laneNowSchema, mutationFileSchema, parkedListSchema } from "./operations-schema.ts";
import { readParked, type PageEnd, type ParkedMutation } from "./parked.ts";

export interface OperationsDeps {
  config: Config;
  db: Kysely<Database>;
  codec: PayloadCodec;
  wake: Wake;
  requireOps: RequireOps;
}

/** `/ops/v1`: what waits for a person, what is known of it, and what the person decides. */
export const operationsRoutes: FastifyPluginAsyncTypebox<OperationsDeps> = async (app, deps) => {
  const { config, db, codec, wake, requireOps } = deps;
  const [viewer, operator] = [requireOps("viewer"), requireOps("operator")];

  /** The tenant's name once it is known to be one. */
  function tenantOf({ tenant }: { tenant: string }): string {
    if (!Object.hasOwn(config.tenants, tenant))
      throw new TidegateError("not-found", "There is no such tenant.");
    return tenant;
  }

  /** The lane is due; that nobody hears of it at once costs some seconds. */
  async function wakeFor(tenantId: string, { commandId, laneId }: Given, log: FastifyBaseLogger) {
    await wake.now(tenantId, laneId).catch((error: unknown) => {
      log.warn({ tenantId, laneId, err: error }, "a lane could not be woken; the sweeper will");
    });
    return { commandId };
  }

  app.get(
    "/ops/v1/tenants/:tenant/parked",
    { schema: parkedListSchema, onRequest: viewer },
    async ({ params, query }) => {
      const tenantId = tenantOf(params);
      const after = query.after === undefined ? undefined : toPageEnd(query.after);
      const { id: upstreamId } = primaryOf(config.tenants[tenantId]!);
      const page = await inTenant(db, tenantId, (trx) =>
        readParked(trx, tenantId, { upstreamId, after, limit: query.limit }),
      );
      return { mutations: page.parked.map(toView), ...(page.next && { next: fromPageEnd(page.next) }) };
    },
  );

  app.get(
    "/ops/v1/tenants/:tenant/mutations/:id",
    { schema: mutationFileSchema, onRequest: viewer },
    async ({ params }) => {
      const tenantId = tenantOf(params);
      const mutationId = params.id.toLowerCase();
      const { id: upstreamId } = primaryOf(config.tenants[tenantId]!);
      const file = await inTenant(db, tenantId, (trx) =>
        readMutationFile(trx, tenantId, { mutationId, upstreamId }, codec),
      );
      if (!file) throw new TidegateError("not-found", "There is no such mutation.");
      return toFileView(mutationId, file);
    },
  );

  app.post(
    "/ops/v1/tenants/:tenant/mutations/:id/commands",
    { schema: commandSchema, onRequest: operator },
    async (request, reply) => {
      const { params, body, log } = request;
      const tenantId = tenantOf(params);
      const order = { ...body, givenBy: request.operator.name };
      const given = await commandMutation(db, tenantId, params.id.toLowerCase(), order);
      return await reply.code(202).send(await wakeFor(tenantId, given, log));
    },
  );

  app.post(
    "/ops/v1/tenants/:tenant/lanes/:laneId/now",
    { schema: laneNowSchema, onRequest: operator },
    async (request, reply) => {
      const { params, body, log } = request;
      const tenantId = tenantOf(params);
      const order = { reason: body?.reason, givenBy: request.operator.name };
      const given = await lookAtLane(db, tenantId, params.laneId, order);
      return await reply.code(202).send(await wakeFor(tenantId, given, log));
    },
  );
};

function fromPageEnd({ since, id }: PageEnd): string {
  return Buffer.from(`${id} ${since}`).toString("base64url");
}

function toPageEnd(text: string): PageEnd {
  const [, id, since] = pageEnd.exec(Buffer.from(text, "base64url").toString()) ?? [];
  if (id === undefined || since === undefined) {
    throw new TidegateError("invalid-request", "`after` is not the `next` of a page.");
  }
  return { id, since };
}

const pageEnd = /^([0-9a-f-]{36}) (\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d(?::?\d\d)*)$/;

function toView({ problem, since, op, ...parked }: ParkedMutation) {
  return {
    ...parked,
    op: toOp(op),
    state: "parked" as const,
    since: since.toISOString(),
    ...withProblem(problem),
  };
}

function withProblem(problem: StoredProblem | null): { problem?: Problem } {
  return problem ? { problem: problemOf(problem) } : {};
}

function toOp(op: string | null): "create" | "update" | "delete" | null {
  return op === "create" || op === "update" || op === "delete" ? op : null;
}

const timeOrNull = (time: Date | null): string | null => time?.toISOString() ?? null;

function toFileView(id: string, { key, delivery, attempts, commands }: MutationFile) {
  return {
    id,
    clientId: key.client_id,
    laneId: key.client_id,
    seq: Number(key.seq),
    entity: key.entity,
    status: key.status ?? (delivery?.state === "parked" ? ("parked" as const) : ("pending" as const)),
    recordId: key.record_id,
    version: key.version,
    ...withProblem(key.problem ?? delivery?.problem ?? null),
    acceptedAt: key.accepted_at.toISOString(),
    settledAt: timeOrNull(key.settled_at),
    requestId: key.request_id,
    ...(delivery && { delivery: toDeliveryView(delivery) }),
    attempts: attempts.map(toAttemptView),
    commands: commands.map(toCommandView),
  };
}

function toDeliveryView(delivery: NonNullable<MutationFile["delivery"]>) {
  return {
    state: delivery.state,
    op: toOp(delivery.op),
    since: delivery.updated_at.toISOString(),
    blockedBy: delivery.blocked_by,
    possiblySent: delivery.possibly_sent,
    firstSentAt: timeOrNull(delivery.first_sent_at),
    lastSentAt: timeOrNull(delivery.last_sent_at),
    ...withProblem(delivery.problem),
  };
}

function toAttemptView(attempt: MutationFile["attempts"][number]) {
  return {
    upstream: attempt.upstream_id,
    begunAt: attempt.begun_at.toISOString(),
    durationMs: attempt.duration_ms,
    disposition: attempt.disposition,
    sent: attempt.sent,
    status: attempt.http_status,
    recordId: attempt.record_id,
    epoch: Number(attempt.epoch),
    worker: attempt.worker,
    requestId: attempt.request_id,
    answer: attempt.answer,
  };
}

function toCommandView(command: MutationFile["commands"][number]) {
  return {
    id: command.command_id,
    command: command.command,
    recordId: command.record_id,
    reason: command.reason,
    givenBy: command.given_by,
    givenAt: command.given_at.toISOString(),
    doneAt: timeOrNull(command.done_at),
    result: command.result,
  };
}
