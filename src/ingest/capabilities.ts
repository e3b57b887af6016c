import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import { Type } from "typebox";

import { waitSecondsMax } from "../change-feed/routes.ts";
import { errorAnswers } from "../http/problem.ts";
import type { Config } from "../platform/config/schema.ts";
import { serviceNames } from "../push/service.ts";
import { primaryOf } from "../upstream/primary.ts";

export interface CapabilityDeps {
  config: Pick<Config, "tenants" | "limits">;
  epoch: () => string;
  requireClient: onRequestAsyncHookHandler;
}

const schema = {
  operationId: "readCapabilities",
  tags: ["sync"],
  summary: "What this gateway takes and does",
  response: {
    200: Type.Object(
      {
        protocol: Type.Literal(1),
        epoch: Type.String(),
        limits: Type.Object(
          {
            mutations: Type.Integer({ description: "in one batch" }),
            bodyBytes: Type.Integer({ description: "of a decoded body" }),
            mutationBytes: Type.Integer(),
            depth: Type.Integer({ description: "of nested data" }),
            waitSeconds: Type.Integer(),
          },
          { additionalProperties: false },
        ),
        keepAckedDays: Type.Integer({ description: "How long clients keep acknowledged mutations." }),
        push: Type.Array(Type.Enum(["fcm", "webhook"]), {
          description: "By what apps can be woken; see `PUT /v1/clients/{clientId}`.",
        }),
        entities: Type.Record(
          Type.String(),
          Type.Object(
            { create: Type.Boolean(), update: Type.Boolean(), delete: Type.Boolean() },
            { additionalProperties: false },
          ),
        ),
      },
      { additionalProperties: false },
    ),
    ...errorAnswers("unauthorized", "internal", "unavailable"),
  },
};

/** `GET /v1/capabilities`: what an app may rely on, for the token's tenant. */
export const capabilityRoutes: FastifyPluginAsyncTypebox<CapabilityDeps> = async (app, deps) => {
  const { config, epoch, requireClient } = deps;
  app.get("/v1/capabilities", { schema, onRequest: requireClient }, async ({ identity }) => {
    const tenant = config.tenants[identity.tenantId];
    const entities = tenant ? primaryOf(tenant).upstream.entities : {};
    const { keepAckedDays, ...limits } = config.limits;
    return {
      protocol: 1 as const,
      epoch: epoch(),
      limits: { ...limits, waitSeconds: waitSecondsMax },
      keepAckedDays,
      push: tenant?.push ? serviceNames(tenant.push) : [],
      entities: Object.fromEntries(
        Object.entries(entities).map(([name, { create, update, delete: remove }]) => [
          name,
          { create: create.enabled, update: update.enabled, delete: remove.enabled },
        ]),
      ),
    };
  });
};
