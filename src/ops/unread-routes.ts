import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import { knownTenant } from "./known-tenant.ts";
import type { OperationsDeps } from "./operations-routes.ts";
import { closed, common, errors, pageQuery, problem, tenant, text, time, uuid } from "./operations-schema.ts";
import { withProblem } from "./operations-views.ts";
import { fromPageEnd, toPageEnd } from "./page-end.ts";
import { markSeen, readUnread, type UnreadOutcome } from "./unread.ts";

const Unread = Type.Object(
  {
    id: uuid,
    clientId: uuid,
    userId: Type.String({ description: "Whose change was not made." }),
    seq: Type.Integer(),
    entity: Type.String(),
    status: Type.Enum(["conflict", "rejected"]),
    problem,
    since: time("When the feed told it."),
  },
  closed,
);

const listSchema = {
  ...common,
  operationId: "listUnreadOutcomes",
  summary: "Refused mutations whose client is not known to have read so, oldest first",
  params: Type.Object({ tenant }, closed),
  querystring: pageQuery,
  response: {
    200: Type.Object({ outcomes: Type.Array(Unread), next: Type.Optional(Type.String()) }, closed),
    ...errorAnswers(...errors),
  },
};

const seenSchema = {
  ...common,
  operationId: "markOutcomeSeen",
  summary: "Say that the user knows of a refused mutation, or need not",
  params: Type.Object({ tenant, id: uuidQuery("The mutation's id.") }, closed),
  body: Type.Object(
    { reason: text(500, "Why it is no longer anybody's alarm; kept with your name.") },
    closed,
  ),
  response: { 200: Type.Object({ id: uuid, seenBy: Type.String() }, closed), ...errorAnswers(...errors) },
};

/** `/ops/v1/tenants/{tenant}/unread-outcomes`: what a user does not know of yet, and a person may have to tell. */
export const unreadRoutes: FastifyPluginAsyncTypebox<OperationsDeps> = async (app, deps) => {
  const { config, db, requireOps } = deps;
  const base = "/ops/v1/tenants/:tenant/unread-outcomes";

  app.get(base, { schema: listSchema, onRequest: requireOps("viewer") }, async ({ params, query }) => {
    const tenantId = knownTenant(config, params.tenant);
    const after = query.after === undefined ? undefined : toPageEnd(query.after);
    const { page, next } = await inTenant(db, tenantId, (trx) =>
      readUnread(trx, tenantId, { after, limit: query.limit }),
    );
    return { outcomes: page.map(toView), ...(next && { next: fromPageEnd(next) }) };
  });

  app.post(
    `${base}/:id/seen`,
    { schema: seenSchema, onRequest: requireOps("operator") },
    async ({ params, body, operator }) => {
      const tenantId = knownTenant(config, params.tenant);
      const seen = { mutationId: params.id.toLowerCase(), by: operator.name, reason: body.reason };
      if (!(await inTenant(db, tenantId, (trx) => markSeen(trx, tenantId, seen))))
        throw new TidegateError("not-found", "There is no such outcome that is unread and unseen.");
      return { id: seen.mutationId, seenBy: seen.by };
    },
  );
};

function toView({ mutation_id: id, client_id: clientId, user_id: userId, ...row }: UnreadOutcome) {
  const { seq, entity, status, told_at: since } = row;
  return {
    id,
    clientId,
    userId,
    seq: Number(seq),
    entity,
    status: status as "conflict" | "rejected",
    since: since.toISOString(),
    ...withProblem(row.problem),
  };
}
