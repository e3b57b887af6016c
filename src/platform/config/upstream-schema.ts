import { Type } from "typebox";

import { EntityConfig } from "./entity-schema.ts";
import { Disposition } from "./operation-schema.ts";
import { patterns } from "./patterns.ts";
import { closed, integer, jsonPointer, named, text, type Always } from "./schema-parts.ts";

export type UpstreamAuth =
  | { type: "bearer"; token: string }
  | { type: "basic"; username: string; password: string }
  | { type: "apiKey"; header: string; key: string }
  | {
      type: "oauth2ClientCredentials";
      tokenUrl: string;
      clientId: string;
      clientSecret: string;
      scope?: string;
      clientAuth?: "basic" | "body";
      parameters?: Record<string, string>;
      proxy?: string;
    };
export const UpstreamAuth = Type.Unsafe<UpstreamAuth>({
  type: "object",
  description: "How the gateway shows the upstream who it is.",
  required: ["type"],
  discriminator: { propertyName: "type" },
  oneOf: [
    Type.Object({ type: Type.Literal("bearer"), token: text("The token, as ${VAR}.") }, closed),
    Type.Object(
      {
        type: Type.Literal("basic"),
        username: text("The user's name."),
        password: text("The password, as ${VAR}."),
      },
      closed,
    ),
    Type.Object(
      {
        type: Type.Literal("apiKey"),
        header: text("The header that carries the key, e.g. X-Api-Key.", patterns.headerName),
        key: text("The key, as ${VAR}."),
      },
      closed,
    ),
    Type.Object(
      {
        type: Type.Literal("oauth2ClientCredentials"),
        tokenUrl: text("Where tokens are issued: an absolute http or https URL."),
        clientId: text("The client's ID."),
        clientSecret: text("The client's secret, as ${VAR}."),
        scope: Type.Optional(text("The scope to ask for.")),
        clientAuth: Type.Optional(
          Type.Enum(["basic", "body"], {
            description: "How the token endpoint is shown ID and secret: basic (without this key) or body.",
          }),
        ),
        parameters: Type.Optional(
          Type.Record(Type.String(), text("The value."), {
            description:
              "Further parameters of the request for a token, e.g. { audience: https://crm.example }.",
          }),
        ),
        proxy: Type.Optional(text("The proxy to the token endpoint, like the upstream's `proxy`.")),
      },
      {
        ...closed,
        description:
          "Access tokens by OAuth 2.0's client credentials: fetched when needed, renewed before they end, and once more " +
          "when a call is answered with 401.",
      },
    ),
  ],
});

export type TlsConfig = Type.Static<typeof TlsConfig>;
export const TlsConfig = Type.Object(
  {
    cert: Type.Optional(
      text("Our certificate in PEM, the intermediate ones behind it: a file, or the PEM itself as ${VAR}."),
    ),
    key: Type.Optional(text("Its private key in PEM: a file, or the PEM itself as ${VAR}.")),
    passphrase: Type.Optional(text("What the key is encrypted with, as ${VAR}.")),
    ca: Type.Optional(
      text(
        "Authorities to believe besides the well-known ones, in PEM: a file, or the PEM itself as ${VAR}.",
      ),
    ),
  },
  {
    ...closed,
    description:
      "For https: a certificate that the upstream asks for, and authorities of one's own. Files are found from the " +
      "configuration file on. They also hold for the endpoint that issues tokens.",
  },
);

export type ErrorRule = Type.Static<typeof ErrorRule>;
export const ErrorRule = Type.Object(
  {
    at: jsonPointer("Where an answer's body tells of it."),
    is: Type.Optional(
      Type.Array(Type.Union([Type.String(), Type.Number(), Type.Boolean()]), {
        minItems: 1,
        description:
          "What stands there. Without it: anything but null, false, 0 and what is empty. A number also fits as text.",
      }),
    ),
    status: integer(
      "The status that such an answer counts as: 404 none, 409 conflict, 422 refused, 503 unclear …",
      {
        minimum: 400,
        maximum: 599,
      },
    ),
  },
  { ...closed, description: "An answer that says so counts as one of this status." },
);

export type PollConfig = Type.Static<typeof PollConfig>;
export const PollConfig = Type.Object(
  {
    everyMs: integer("The pause between two rounds.", { minimum: 100, maximum: 86_400_000 }),
    overlapMs: integer("How far each round reaches back into the one before: clocks and equal times lie.", {
      default: 120_000,
      minimum: 0,
      maximum: 86_400_000,
    }),
    sweepEveryMs: integer("The pause between two readings of everything, which also find what was deleted.", {
      default: 86_400_000,
      minimum: 100,
      maximum: 2_592_000_000,
    }),
    missingShareMax: Type.Number({
      default: 0.5,
      minimum: 0,
      maximum: 1,
      description:
        "A sweep that lacks a larger share of the known records than this is not believed: none of them is taken for " +
        "deleted. Up to 10 missing records are always looked at.",
    }),
  },
  {
    ...closed,
    description:
      "For the primary: fetch its own changes, of the entities with `list`. Where that has no `since`, each round reads " +
      "everything.",
  },
);

export type EventsConfig = Type.Static<typeof EventsConfig>;
export const EventsConfig = Type.Object(
  {
    secrets: Type.Array(text("A secret, as ${VAR}; base64 if it begins with `whsec_`."), {
      minItems: 1,
      maxItems: 4,
      description: "Any of them may have signed an event, so that they can be changed one after the other.",
    }),
    toleranceMs: integer("How far an event's time may be from the gateway's.", {
      default: 300_000,
      minimum: 1_000,
      maximum: 3_600_000,
    }),
    signature: Type.Optional(
      Type.Object(
        {
          header: text("The header that carries the signature, e.g. X-Signature.", patterns.headerName),
          prefix: Type.String({ default: "", description: "What stands before it, e.g. sha256=." }),
          encoding: Type.Enum(["hex", "base64"], { default: "hex", description: "How it is written." }),
          timestampHeader: text(
            "The header that carries the event's time: Unix seconds, or RFC 3339.",
            patterns.headerName,
          ),
          signed: Type.String({
            default: "{timestamp}.{body}",
            pattern: "^(?=.*\\{timestamp\\})(?=.*\\{body\\}).*$",
            description: "What is signed; it has to hold both.",
          }),
        },
        { ...closed, description: "HMAC-SHA256 in a form of its own. Without it: Standard Webhooks." },
      ),
    ),
    items: Type.Optional(
      jsonPointer(
        "Where a request holds its event, or a list of events. Without it: the request is that itself.",
      ),
    ),
    entity: jsonPointer("Where an event says what kind of record it is about."),
    entities: Type.Optional(
      Type.Record(Type.String(), text("The entity.", patterns.entityName), {
        description: "What it says there → entity. Without it, that is the entity's name.",
      }),
    ),
    id: jsonPointer("Where an event holds the record's ID."),
  },
  {
    ...closed,
    description:
      "For the primary: it tells of its changes at /v1/tenants/{tenant}/upstreams/{id}/events. An event only names a record, " +
      "which is then read.",
  },
);

const upstreamConfig = Type.Object(
  {
    role: Type.Enum(["primary", "shadow"], {
      description:
        "primary: the system of record, one for each tenant. shadow: a further system that follows what the primary took.",
    }),
    kind: Type.Optional(
      Type.Enum(["rest", "odata"], { description: "The protocol: JSON records over HTTP, or OData 4.0." }),
    ),
    module: Type.Optional(
      text(
        "A connector of your own, instead of `kind`: a file such as ./connectors/legacy.ts, found from the configuration " +
          "file on (docs/module-connectors.md). What it can do, and how, it knows itself.",
      ),
    ),
    settings: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), { description: "For `module`: what it is opened with." }),
    ),
    follow: Type.Optional(
      Type.Boolean({ description: "For shadows: also carry changes made in the primary by others." }),
    ),
    baseUrl: Type.Optional(
      text("Where the upstream is: an absolute http or https URL. A `module` may do without."),
    ),
    auth: Type.Optional(UpstreamAuth),
    tls: Type.Optional(TlsConfig),
    proxy: Type.Optional(
      text(
        "The proxy to the upstream, e.g. http://proxy:3128, or `none`. Without it, HTTPS_PROXY, HTTP_PROXY and NO_PROXY " +
          "of the environment decide.",
      ),
    ),
    sign: Type.Optional(
      text(
        "A module that signs every call, e.g. ./hooks/sign.ts, found from the configuration file on. It exports one " +
          "function, which gets { method, url, headers, body } and returns headers to add.",
      ),
    ),
    actorHeader: Type.Optional(text("The header that names the acting user.", patterns.headerName)),
    headers: Type.Optional(
      named(patterns.headerName, Type.String({ pattern: patterns.headerValue.pattern }), {
        description: "Further headers of every call.",
      }),
    ),
    timeoutMs: integer("How long one call may take.", { default: 10_000, minimum: 1, maximum: 600_000 }),
    concurrency: integer("Calls in flight at a time, in one process.", {
      default: 16,
      minimum: 1,
      maximum: 1024,
    }),
    requestsPerSecond: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 1_000_000,
        description: "At most this many calls a second, of each worker.",
      }),
    ),
    retry: Type.Object(
      {
        baseMs: integer("The first pause.", { default: 1000, minimum: 1, maximum: 86_400_000 }),
        capMs: integer("The longest pause.", { default: 900_000, minimum: 1, maximum: 86_400_000 }),
      },
      {
        ...closed,
        default: {},
        description: "The pause before a transient failure is retried: exponential, with jitter.",
      },
    ),
    circuit: Type.Object(
      {
        failures: integer("Failures in a row that open the breaker.", {
          default: 5,
          minimum: 1,
          maximum: 10_000,
        }),
        cooldownMs: integer("The time until a probe is let through.", {
          default: 10_000,
          minimum: 1,
          maximum: 86_400_000,
        }),
      },
      { ...closed, default: {}, description: "The breaker: a dead upstream costs a probe now and then." },
    ),
    onPark: Type.Enum(["hold-dependents", "hold-lane"], {
      default: "hold-dependents",
      description: "Behind a parked mutation: hold only what depends on it, or everything of that client.",
    }),
    statuses: Type.Unsafe<Record<number, Disposition>>(
      named(patterns.status, Disposition, {
        default: {},
        description: "Overrides of what a failure's status means, e.g. { 404: park, 423: retry }.",
      }),
    ),
    errors: Type.Optional(
      Type.Array(ErrorRule, {
        description:
          "For `kind: rest`: failures that answers tell of in their bodies, whatever their status, e.g. " +
          "{ at: /success, is: [false], status: 422 }. The first that fits counts.",
      }),
    ),
    processingMs: integer(
      "For `lookup`: how long the upstream may still be busy with a call that timed out.",
      {
        default: 0,
        minimum: 0,
        maximum: 86_400_000,
      },
    ),
    indexLagMs: integer("For `lookup`: how long a new record may be missing from the upstream's search.", {
      default: 0,
      minimum: 0,
      maximum: 86_400_000,
    }),
    poll: Type.Optional(PollConfig),
    events: Type.Optional(EventsConfig),
    entities: named(patterns.entityName, EntityConfig, {
      minProperties: 1,
      description: "The kinds of records that go to this upstream.",
    }),
  },
  { ...closed, description: "A system that mutations are replayed into." },
);

/** `baseUrl` is empty where the upstream is a module that needs none. */
export type UpstreamConfig = Always<Type.Static<typeof upstreamConfig>, "baseUrl">;
export const UpstreamConfig = Type.Unsafe<UpstreamConfig>(upstreamConfig);
