import { Type } from "typebox";

import { patterns } from "./patterns.ts";
import { PushConfig } from "./push-schema.ts";
import { closed, integer, named, text } from "./schema-parts.ts";
import { UpstreamConfig } from "./upstream-schema.ts";

/**
 * The configuration as the gateway uses it: the file's own keys, with every default filled in.
 *
 * The JSON Schema of the file (`config/tidegate.schema.json`) is made from these values, so the descriptions are what
 * an editor shows. A key with a default is required here and optional in the file.
 */

const tokenKeys = {
  issuer: text("The token's `iss`."),
  audience: text("The token's `aud`."),
  algorithm: Type.Enum(["HS256", "RS256", "ES256", "EdDSA"], {
    description: "HS256 needs `secret`, the others `jwksUri`. The token's own `alg` never decides.",
  }),
  secret: Type.Optional(text("The HS256 secret, as ${VAR}; at least 32 characters.")),
  jwksUri: Type.Optional(text("Where the issuer publishes its keys.")),
};

export type OpsAuth = Type.Static<typeof OpsAuth>;
export const OpsAuth = Type.Object(tokenKeys, {
  ...closed,
  description: "The tokens of operators; their claim `role` is viewer, operator or approver.",
});

export type TenantAuth = Type.Static<typeof TenantAuth>;
export const TenantAuth = Type.Object(
  {
    ...tokenKeys,
    match: Type.Optional(
      Type.Record(Type.String(), text("The value."), {
        minProperties: 1,
        description: "Claims that the token must have, where several tenants share an issuer.",
      }),
    ),
    scopes: Type.Array(text("A scope, or one from a claim.", patterns.tokenScope), {
      default: ["org", "user:{sub}"],
      minItems: 1,
      description:
        "What a token sees: org, user:{sub}, group:{groups}. A list claim gives one scope for each element.",
    }),
    roles: Type.String({
      default: "roles",
      minLength: 1,
      description: "The claim that holds the user's roles.",
    }),
  },
  { ...closed, description: "Whose tokens the tenant accepts, and what they may see." },
);

export type TenantConfig = Type.Static<typeof TenantConfig>;
export const TenantConfig = Type.Object(
  {
    auth: TenantAuth,
    upstreams: named(patterns.id, UpstreamConfig, {
      minProperties: 1,
      description: "The systems behind the gateway; exactly one is the primary.",
    }),
    push: Type.Optional(PushConfig),
  },
  { ...closed, description: "An organisation." },
);

export type Limits = Type.Static<typeof Limits>;
export const Limits = Type.Object(
  {
    mutations: integer("Mutations in a batch.", { default: 500, minimum: 1, maximum: 10_000 }),
    bodyBytes: integer("Decoded bytes of a batch.", {
      default: 4_194_304,
      minimum: 1024,
      maximum: 67_108_864,
    }),
    mutationBytes: integer("Bytes of one mutation.", { default: 262_144, minimum: 256, maximum: 67_108_864 }),
    depth: integer("Nesting of a mutation's data.", { default: 64, minimum: 1, maximum: 256 }),
    keepAckedDays: integer("How long clients keep acknowledged mutations.", {
      default: 35,
      minimum: 1,
      maximum: 400,
    }),
  },
  { ...closed, default: {}, description: "What a client may send; advertised under /v1/capabilities." },
);

export type FollowConfig = Type.Static<typeof FollowConfig>;
export const FollowConfig = Type.Object(
  {
    lookEveryMs: integer(
      "How often the gateway looks for changes that it was not told of, on behalf of everybody who waits.",
      { default: 5_000, minimum: 100, maximum: 60_000 },
    ),
    commentEveryMs: integer("How often an event stream on which nothing happens sends a comment.", {
      default: 15_000,
      minimum: 100,
      maximum: 60_000,
    }),
    stalledMs: integer(
      "How long an event stream's reader may take for one write (64 KiB, or a change) before it is cut off.",
      {
        default: 30_000,
        minimum: 100,
        maximum: 600_000,
      },
    ),
    streamsMax: integer("Event streams in one process; further ones are sent away.", {
      default: 8_000,
      minimum: 1,
      maximum: 100_000,
    }),
  },
  { ...closed, default: {}, description: "How clients are told of changes." },
);

export type Retention = Type.Static<typeof Retention>;
export const Retention = Type.Object(
  {
    feedDays: integer(
      "How long what changed is told by cursors: the longest time that a client may be offline and go on from where it was.",
      { default: 400, minimum: 1, maximum: 36_500 },
    ),
    payloadDays: integer("How long after its final outcome what a client sent is kept.", {
      default: 90,
      minimum: 7,
      maximum: 36_500,
    }),
    attemptDays: integer(
      "How long after a mutation's final outcome what was tried at the upstreams, and what they answered, is kept.",
      { default: 180, minimum: 7, maximum: 36_500 },
    ),
  },
  { ...closed, default: {}, description: "How long things are kept that are not kept for ever." },
);

export type Config = Type.Static<typeof Config>;
export const Config = Type.Object(
  {
    ops: Type.Optional(
      Type.Unsafe<{ auth: OpsAuth } | undefined>(
        Type.Object(
          { auth: OpsAuth },
          { ...closed, description: "Who may use /ops; its own issuer or secret, never a tenant's." },
        ),
      ),
    ),
    limits: Limits,
    follow: FollowConfig,
    retention: Retention,
    tenants: named(patterns.id, TenantConfig, { minProperties: 1, description: "The organisations." }),
  },
  closed,
);
