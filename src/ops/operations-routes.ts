import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { Kysely } from "kysely";

import type { RequireOps } from "../http/ops-auth.ts";
import type { Config } from "../platform/config/schema.ts";
import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import type { Wake } from "../replay/wake.ts";
import { primaryOf } from "../upstream/primary.ts";
import { commandMutation, lookAtLane } from "./give-command.ts";
import { knownTenant } from "./known-tenant.ts";
import { readMutationFile } from "./mutation-file.ts";
import { commandSchema, laneNowSchema, mutationFileSchema, parkedListSchema } from "./operations-schema.ts";
import { toFileView, toView } from "./operations-views.ts";
import { fromPageEnd, toPageEnd } from "./page-end.ts";
import { readParked } from "./parked.ts";
import { wakerOf } from "./wake-lane.ts";

export interface OperationsDeps {
  config: Config;
  db: Kysely<Database>;
  codec: PayloadCodec;
  wake: Wake;
  wakeShadow: Wake | undefined;
  requireOps: RequireOps;
}

/** `/ops/v1`: what waits for a person, what is known of it, and what the person decides. */
export const operationsRoutes: FastifyPluginAsyncTypebox<OperationsDeps> = async (app, deps) => {
  const { config, db, codec, requireOps } = deps;
  const [viewer, operator] = [requireOps("viewer"), requireOps("operator")];

  const tenantOf = ({ tenant }: { tenant: string }): string => knownTenant(config, tenant);
  const wakeFor = wakerOf(deps);

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
