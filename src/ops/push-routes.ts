import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { readPushFigures, type PushFigures } from "../push/metrics.ts";
import { serviceNames } from "../push/service.ts";
import { knownTenant } from "./known-tenant.ts";
import type { OperationsDeps } from "./operations-routes.ts";
import { timeOrNull } from "./operations-views.ts";

const closed = { additionalProperties: false };
const timeSchema = (description: string) =>
  Type.Union([Type.String({ format: "date-time" }), Type.Null()], { description });

const pushSchema = {
  operationId: "readPush",
  tags: ["ops"],
  summary: "How the services do by which a tenant's apps are woken",
  params: Type.Object({ tenant: Type.String() }, closed),
  response: {
    200: Type.Object(
      {
        services: Type.Array(
          Type.Object(
            {
              service: Type.Enum(["fcm", "webhook"]),
              registered: Type.Integer({ description: "Clients that can be woken by it." }),
              due: Type.Integer({ description: "Pushes that could be sent now." }),
              failures: Type.Integer({ description: "In a row; 0 while it takes pushes." }),
              pausedUntil: timeSchema("Until then it is not called; then by one push."),
              problem: Type.Union([Type.String(), Type.Null()], {
                description: "The last failure, also when it is over.",
              }),
              problemAt: timeSchema("When that was."),
            },
            closed,
          ),
        ),
      },
      closed,
    ),
    ...errorAnswers("unauthorized", "forbidden", "not-found", "internal", "unavailable"),
  },
};

/** `/ops/v1/tenants/{tenant}/push`: how a tenant's push services do. */
export const pushRoutes: FastifyPluginAsyncTypebox<
  Pick<OperationsDeps, "config" | "db" | "requireOps">
> = async (app, { config, db, requireOps }) => {
  app.get(
    "/ops/v1/tenants/:tenant/push",
    { schema: pushSchema, onRequest: requireOps("viewer") },
    async ({ params }) => {
      const tenantId = knownTenant(config, params.tenant);
      const push = config.tenants[tenantId]?.push;
      const figures = push ? await readPushFigures(db, tenantId, serviceNames(push)) : [];
      return { services: figures.map(toView) };
    },
  );
};

function toView({ service, registered, due, failures, pausedUntil, problem, problemAt }: PushFigures) {
  return {
    service,
    registered,
    due,
    failures,
    pausedUntil: timeOrNull(pausedUntil),
    problem,
    problemAt: timeOrNull(problemAt),
  };
}
