import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { onRequestAsyncHookHandler } from "fastify";
import type { Kysely } from "kysely";
import { Type, type Static } from "typebox";

import { lockClient, recordAppVersion } from "../clients/client.ts";
import type { Identity } from "../http/identity.ts";
import { errorAnswers } from "../http/problem.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import type { PushConfig } from "../platform/config/push-schema.ts";
import type { Config } from "../platform/config/schema.ts";
import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { register, unregister, type Registration } from "./registration.ts";

export interface ClientRouteDeps {
  config: Pick<Config, "tenants">;
  db: Kysely<Database>;
  codec: PayloadCodec;
  fingerprintSecrets: readonly string[];
  requireClient: onRequestAsyncHookHandler;
}

const closed = { additionalProperties: false };
/** No control characters: Postgres has no NUL, and nobody else wants the others. */
const printable = String.raw`^[^\u0000-\u001f\u007f]*$`;

const FcmRegistration = Type.Object(
  {
    service: Type.Literal("fcm"),
    platform: Type.Enum(["android", "ios"]),
    token: Type.String({
      minLength: 1,
      maxLength: 4_096,
      pattern: printable,
      description: "The registration token that FCM gave the app.",
    }),
  },
  { ...closed, description: "By Firebase Cloud Messaging." },
);

const WebhookRegistration = Type.Object(
  {
    service: Type.Literal("webhook"),
    platform: Type.Optional(
      Type.Enum(["android", "ios", "other"], { description: "Whose budget counts. Left out: other." }),
    ),
    registration: Type.String({
      minLength: 1,
      maxLength: 4_096,
      pattern: printable,
      description: "Handed to the webhook as it is: by it the app is found.",
    }),
  },
  { ...closed, description: "By the organisation's own service." },
);

const ClientBody = Type.Object(
  {
    appVersion: Type.Optional(
      Type.String({ minLength: 1, maxLength: 100, pattern: printable, description: "For operators." }),
    ),
    push: Type.Optional(
      Type.Union([FcmRegistration, WebhookRegistration, Type.Null()], {
        description: "How the app is woken. null: not any more. Left out: as before.",
      }),
    ),
  },
  closed,
);

const clientSchema = {
  operationId: "putClient",
  tags: ["sync"],
  summary: "What a client says of itself, and how its app is woken",
  description:
    "A wake-up push says that there is something to read, and nothing else. It comes when something lies behind what the " +
    "client has read: its own outcomes, or records in the scopes that its token had when it last read. An app sends this " +
    "at each start and when its registration token changes. A token that another client had is this one's from then on.",
  params: Type.Object({ clientId: uuidQuery("The token's user's own client, or a new one.") }, closed),
  body: ClientBody,
  response: {
    200: Type.Object(
      {
        clientId: Type.String({ format: "uuid" }),
        appVersion: Type.Union([Type.String(), Type.Null()]),
        push: Type.Union(
          [
            Type.Object(
              {
                service: Type.Enum(["fcm", "webhook"]),
                platform: Type.Enum(["android", "ios", "other"]),
              },
              closed,
            ),
            Type.Null(),
          ],
          { description: "How the app is woken; null when it is not." },
        ),
      },
      closed,
    ),
    ...errorAnswers(
      "invalid-request",
      "unauthorized",
      "client-owned",
      "request-too-large",
      "unsupported-media-type",
      "push-not-configured",
      "internal",
      "unavailable",
    ),
  },
};

/** `PUT /v1/clients/{clientId}`: the app's version, and its registration for wake-up push. */
export const clientRoutes: FastifyPluginAsyncTypebox<ClientRouteDeps> = async (app, deps) => {
  app.put(
    "/v1/clients/:clientId",
    { schema: clientSchema, onRequest: deps.requireClient },
    async ({ identity, params, body }) =>
      await putClient(deps, identity, params.clientId.toLowerCase(), body),
  );
};

async function putClient(
  { config, db, codec, fingerprintSecrets: secrets }: ClientRouteDeps,
  { tenantId, userId, scopes }: Identity,
  clientId: string,
  { appVersion, push }: Static<typeof ClientBody>,
) {
  const configured = config.tenants[tenantId]?.push;
  const registration = push ? toRegistration(push) : push;
  if (registration) assertConfigured(configured, registration);
  const key = { tenantId, clientId };
  return await inTenant(db, tenantId, async (trx) => {
    await lockClient(trx, key, userId);
    if (appVersion !== undefined) await recordAppVersion(trx, key, appVersion);
    if (registration) {
      const delayMs = configured?.delayMs ?? 0;
      await register(trx, key, registration, { codec, secrets, scopes, delayMs });
    } else if (registration === null) await unregister(trx, key);
    return await readClient(trx, tenantId, clientId);
  });
}

function toRegistration(push: Static<typeof FcmRegistration | typeof WebhookRegistration>): Registration {
  const { service, platform = "other" } = push;
  return { service, platform, address: push.service === "fcm" ? push.token : push.registration };
}

function assertConfigured(push: PushConfig | undefined, { service }: Registration): void {
  if (!push?.[service]) throw new TidegateError("push-not-configured", `There is no \`${service}\` here.`);
}

async function readClient(trx: Parameters<typeof unregister>[0], tenantId: string, clientId: string) {
  const row = await trx
    .selectFrom("client as c")
    .leftJoin("push_registration as r", (join) =>
      join.onRef("r.tenant_id", "=", "c.tenant_id").onRef("r.client_id", "=", "c.client_id"),
    )
    .select(["c.app_version", "r.service", "r.platform"])
    .where("c.tenant_id", "=", tenantId)
    .where("c.client_id", "=", clientId)
    .executeTakeFirstOrThrow();
  const { app_version: appVersion, service, platform } = row;
  return { clientId, appVersion, push: service && platform ? { service, platform } : null };
}
