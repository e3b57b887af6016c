import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";

import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import { toTempId } from "../platform/uuid.ts";
import { commandChange } from "./give-command.ts";
import { knownShadow } from "./known-tenant.ts";
import { readAttempts, readAttemptsGoneUntil, readCommands } from "./mutation-file.ts";
import { readOpenChange, readOpenChanges, type OpenChange } from "./open-changes.ts";
import type { OperationsDeps } from "./operations-routes.ts";
import { timeOrNull, toAttemptView, toCommandView, toOp, withProblem } from "./operations-views.ts";
import { fromPageEnd, toPageEnd } from "./page-end.ts";
import { changeCommandSchema, changeFileSchema, openChangesSchema } from "./shadow-schema.ts";
import { wakerOf } from "./wake-lane.ts";

/** `/ops/v1`: what a shadow has not taken, and what a person decides about it. */
export const shadowRoutes: FastifyPluginAsyncTypebox<OperationsDeps> = async (app, deps) => {
  const { config, db, codec, requireOps } = deps;
  const [viewer, operator] = [requireOps("viewer"), requireOps("operator")];
  const wakeFor = wakerOf(deps);

  app.get(
    "/ops/v1/tenants/:tenant/shadows/:upstream/parked",
    { schema: openChangesSchema, onRequest: viewer },
    async ({ params, query }) => {
      const { tenantId, upstreamId } = knownShadow(config, params);
      const after = query.after === undefined ? undefined : toPageEnd(query.after);
      const asked = { upstreamId, heldBehind: query.heldBehind, after, limit: query.limit };
      const { changes, next } = await inTenant(db, tenantId, (trx) => readOpenChanges(trx, tenantId, asked));
      return { changes: changes.map(toView), ...(next && { next: fromPageEnd(next) }) };
    },
  );

  app.get(
    "/ops/v1/tenants/:tenant/shadows/:upstream/changes/:id",
    { schema: changeFileSchema, onRequest: viewer },
    async ({ params }) => {
      const { tenantId, upstreamId } = knownShadow(config, params);
      const at = { upstreamId, mutationId: params.id.toLowerCase() };
      const [open, attempts, commands, goneUntil] = await inTenant(db, tenantId, (trx) =>
        Promise.all([
          readOpenChange(trx, tenantId, at),
          readAttempts(trx, tenantId, at, codec),
          readCommands(trx, tenantId, at),
          readAttemptsGoneUntil(trx, tenantId),
        ]),
      );
      if (!open && attempts.length === 0 && commands.length === 0)
        throw new TidegateError("not-found", unknownChange(goneUntil));
      return {
        id: at.mutationId,
        ...(open && { open: toView(open) }),
        attempts: attempts.map(toAttemptView),
        attemptsPrunedUntil: timeOrNull(goneUntil),
        commands: commands.map(toCommandView),
      };
    },
  );

  app.post(
    "/ops/v1/tenants/:tenant/shadows/:upstream/changes/:id/commands",
    { schema: changeCommandSchema, onRequest: operator },
    async (request, reply) => {
      const { params, body, log } = request;
      const { tenantId, upstreamId } = knownShadow(config, params);
      const order = { ...body, givenBy: request.operator.name };
      const change = { upstreamId, changeId: params.id.toLowerCase() };
      const given = await commandChange(db, tenantId, change, order);
      return await reply.code(202).send(await wakeFor(tenantId, given, log));
    },
  );
};

function unknownChange(goneUntil: Date | null): string {
  const known = "Nothing is known of such a change in the shadow.";
  return goneUntil === null
    ? known
    : `${known} What was tried before ${goneUntil.toISOString()} may be deleted, as its time was over.`;
}

function toView(change: OpenChange) {
  return {
    id: change.mutation_id,
    laneId: change.lane_id,
    position: Number(change.position),
    kind: change.kind,
    clientId: change.client_id,
    entity: change.entity,
    recordId: change.server_id,
    tempId: change.temp_id === null ? null : toTempId(change.temp_id),
    shadowRecordId: change.own_id,
    op: toOp(change.op),
    state: change.state,
    blockedBy: change.blocked_by,
    ...withProblem(change.problem),
    possiblySent: change.possibly_sent,
    firstSentAt: timeOrNull(change.first_sent_at),
    lastSentAt: timeOrNull(change.last_sent_at),
    since: change.updated_at.toISOString(),
    attempts: change.attempts,
    held: change.held,
  };
}
