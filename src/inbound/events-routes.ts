import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { Kysely } from "kysely";
import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import type { Config } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import type { Database } from "../platform/schema.ts";
import type { Wake } from "../replay/wake.ts";
import { recordsNamed } from "./events.ts";
import { askForLooks } from "./look.ts";
import { assertSigned } from "./signature.ts";

export interface EventRouteDeps {
  db: Kysely<Database>;
  config: Config;
  wakeInbound: Wake;
}

const eventsSchema = {
  operationId: "tellOfChanges",
  tags: ["webhooks"],
  summary: "An upstream tells that records have changed; they are then read from it",
  security: [],
  params: Type.Object({ tenant: Type.String(), upstream: Type.String() }, { additionalProperties: false }),
  body: Type.Unknown({
    description:
      "The upstream's own event, signed as configured; where it names the record is configured too.",
  }),
  response: {
    202: Type.Object(
      {
        accepted: Type.Integer({ description: "Records that will be read." }),
        ignored: Type.Integer({ description: "Events that are about no record of a configured entity." }),
      },
      { additionalProperties: false },
    ),
    ...errorAnswers(
      "invalid-request",
      "signature-invalid",
      "not-found",
      "request-too-large",
      "unsupported-media-type",
      "internal",
      "unavailable",
    ),
  },
};

/** `POST /v1/tenants/{tenant}/upstreams/{upstream}/events`: what a primary tells of its own changes. */
export const eventRoutes: FastifyPluginAsyncTypebox<EventRouteDeps> = async (app, deps) => {
  app.post(
    "/v1/tenants/:tenant/upstreams/:upstream/events",
    { schema: eventsSchema },
    async (request, reply) => {
      const { tenant: tenantId, upstream: upstreamId } = request.params;
      const upstream = own(own(deps.config.tenants, tenantId)?.upstreams, upstreamId);
      if (!upstream?.events) throw new TidegateError("not-found", "No such upstream tells of changes.");
      assertSigned(upstream.events, request.headers, request.bodyText, Date.now());
      const named = recordsNamed(request.bodyText, upstream.events, Object.keys(upstream.entities));
      if (named.keys.length > 0) {
        await askForLooks(deps.db, { tenantId, upstreamId }, named.keys);
        // Who wakes in vain is helped by the sweeper.
        void deps.wakeInbound.now(tenantId, upstreamId).catch(() => undefined);
      }
      return reply.code(202).send({ accepted: named.keys.length, ignored: named.ignored });
    },
  );
};

function own<Value>(map: Record<string, Value> | undefined, name: string): Value | undefined {
  return map && Object.hasOwn(map, name) ? map[name] : undefined;
}
