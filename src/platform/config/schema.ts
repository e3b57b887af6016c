import { Type } from "typebox";

import { patterns } from "./patterns.ts";
import { closed, integer, jsonPointer, named, text } from "./schema-parts.ts";

/**
 * The configuration as the gateway uses it: the file's own keys, with every default filled in.
 *
 * The JSON Schema of the file (`config/tidegate.schema.json`) is made from these values, so the descriptions are what
 * an editor shows. A key with a default is required here and optional in the file.
 */

/** Optional in the file, since not every kind of upstream needs it, and always there once it is read. */
type Always<T, K extends keyof T> = Omit<T, K> & { [Key in K]-?: Exclude<T[Key], undefined> };

export type Disposition = Type.Static<typeof Disposition>;
export const Disposition = Type.Enum(["retry", "conflict", "reject", "park"], {
  description: "What becomes of a mutation whose call failed with this status.",
});

export type OperationClass = Type.Static<typeof OperationClass>;
export const OperationClass = Type.Enum(
  ["idempotency-key", "upsert", "client-id", "conditional", "lookup", "opaque"],
  {
    default: "opaque",
    description:
      "What the upstream can guarantee for a repeated call, which decides what happens after an ambiguous one: " +
      "idempotency-key (it recognises a repeated key), upsert (creates or updates by our external ID), client-id " +
      "(takes the ID we choose), conditional (changes only if the version matches), lookup (can be searched for our " +
      "reference), opaque (none of these: an ambiguous call is parked for a person).",
  },
);

export type VersionConfig = Type.Static<typeof VersionConfig>;
export const VersionConfig = Type.Union(
  [
    Type.Object({ header: text("The answer's header, e.g. etag.", patterns.headerName) }, closed),
    Type.Object(
      {
        pointer: jsonPointer("The field of the upstream's record."),
        number: Type.Optional(
          Type.Boolean({
            description: "true: it is a number, and goes back as one where a `field` carries it.",
          }),
        ),
      },
      closed,
    ),
  ],
  { description: "Where the upstream tells a record's version: { header: etag } or { pointer: /version }." },
);

export type AnswerConfig = Type.Static<typeof AnswerConfig>;
export const AnswerConfig = Type.Object(
  {
    record: Type.Optional(jsonPointer("Where it holds the record. Without it, it holds none.")),
    id: Type.Optional(jsonPointer("Where it tells the record's ID. Without it: where the record has it.")),
    version: Type.Optional(VersionConfig),
  },
  {
    ...closed,
    description:
      "Where the answer of this operation is not the record as a read gives it, e.g. { id: /id, version: { pointer: /rev } } " +
      'for { "ok": true, "id": …, "rev": … }.',
  },
);

const operationKeys = {
  class: OperationClass,
  header: Type.Optional(
    text(
      "The header that carries the key (idempotency-key; default Idempotency-Key) or the condition (conditional; " +
        "default If-Match, for creates If-None-Match).",
      patterns.headerName,
    ),
  ),
  keyTtlMs: Type.Optional(
    integer("How long the upstream recognises a repeated key. Without it: for ever.", {
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
    }),
  ),
  enabled: Type.Boolean({
    default: true,
    description: "false: mutations of this kind are rejected as `unknown-entity`.",
  }),
  contentType: Type.Optional(
    text("The body's Content-Type, e.g. application/merge-patch+json.", patterns.headerValue),
  ),
  path: Type.Optional(
    text(
      "Where it is sent, if not to {path} (a POST that creates) or {item} (all else): a path and query with {path}, {item}, " +
        "{id} or {/pointer} in it, e.g. {item}/archive.",
      patterns.urlTemplate,
    ),
  ),
};

const conditionKeys = {
  query: Type.Optional(
    text("For conditional: the query parameter that carries the version, instead of a header."),
  ),
  field: Type.Optional(
    jsonPointer("For conditional: the body's field that carries the version, instead of a header."),
  ),
};

export type CreateConfig = Type.Static<typeof CreateConfig>;
export const CreateConfig = Type.Object(
  {
    method: Type.Enum(["POST", "PUT"], { default: "POST", description: "The method of a create." }),
    ...operationKeys,
    answer: Type.Optional(AnswerConfig),
  },
  { ...closed, default: {}, description: "How a record is created." },
);

export type UpdateConfig = Type.Static<typeof UpdateConfig>;
export const UpdateConfig = Type.Object(
  {
    method: Type.Enum(["PATCH", "PUT", "POST"], {
      default: "PATCH",
      description: "PATCH and POST send the change as a JSON Merge Patch, PUT the whole record after it.",
    }),
    sends: Type.Optional(
      Type.Enum(["change", "record"], {
        description: "What is sent, if it is not what the method usually sends.",
      }),
    ),
    ...operationKeys,
    ...conditionKeys,
    answer: Type.Optional(AnswerConfig),
  },
  { ...closed, default: {}, description: "How a record is changed." },
);

export type DeleteConfig = Type.Static<typeof DeleteConfig>;
export const DeleteConfig = Type.Object(
  {
    method: Type.Enum(["DELETE", "POST", "PATCH"], {
      default: "DELETE",
      description: "The method of a delete; POST and PATCH where records are archived rather.",
    }),
    body: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: "What is sent with a POST or PATCH that deletes, e.g. { archived: true }.",
      }),
    ),
    ...operationKeys,
    ...conditionKeys,
  },
  { ...closed, default: {}, description: "How a record is deleted." },
);

export type OperationConfig = CreateConfig | UpdateConfig | DeleteConfig;

const writeRules = (description: string) =>
  Type.Array(text("A scope, a scope from the record's data, or a role.", patterns.writeRule), {
    description,
  });

export type WriteConfig = Type.Static<typeof WriteConfig>;
export const WriteConfig = Type.Object(
  {
    create: Type.Optional(writeRules("Who may create. Without it: anyone in the tenant.")),
    update: Type.Optional(writeRules("Who may update. Without it: whoever sees the record.")),
    delete: Type.Optional(writeRules("Who may delete. Without it: whoever sees the record.")),
    fields: Type.Optional(
      named(patterns.jsonPointer, writeRules("Who may set this field."), {
        description: "Fields that need more than the right to create or update: JSON Pointer → rules.",
      }),
    ),
  },
  {
    ...closed,
    description:
      "Who may change records of this entity. Each rule is a scope (`org`, `user:{/mentor}`) or a role " +
      "(`role:coordinator`); one that fits is enough; an empty list allows nobody.",
  },
);

export type ListConfig = Type.Static<typeof ListConfig>;
export const ListConfig = Type.Object(
  {
    since: Type.Optional(
      text(
        "The query parameter that asks for what changed since a time (RFC 3339, UTC), the time itself included or not. " +
          "With another form of it: name=value, with {since}, {sinceMs} or {sinceSeconds} (since 1970) in the value. For " +
          "`kind: odata`: the property that holds when a record was last changed.",
        patterns.since,
      ),
    ),
    path: Type.Optional(text("Where the list is, if not at {path}: a path and query.", patterns.urlTemplate)),
    page: Type.Optional(
      text(
        "The query parameter of the page's number; behind the last page the list must be empty. Without it, `offset`, " +
          "`cursor` and `next`, the answers' links (`rel=next`) are followed.",
      ),
    ),
    firstPage: Type.Optional(integer("The first page's number. Without it: 1.", { minimum: 0, maximum: 1 })),
    offset: Type.Optional(
      text(
        "The query parameter of the number of records to pass over; behind the last one the list must be empty.",
      ),
    ),
    cursor: Type.Optional(
      Type.Object(
        {
          at: jsonPointer("Where an answer holds the cursor of the next page. The last one has none."),
          parameter: text("The query parameter that carries it."),
        },
        { ...closed, description: "Each answer tells what to ask for next." },
      ),
    ),
    next: Type.Optional(
      jsonPointer("Where an answer holds the next page's URL, at the same origin. The last one has none."),
    ),
    size: Type.Optional(text("The query parameter of the page's size; fewer may come.")),
    pageSize: Type.Optional(
      integer("The size to ask for. Without it: 100.", { minimum: 1, maximum: 10_000 }),
    ),
    items: Type.Optional(jsonPointer("Where the answer holds the records. Without it: the answer itself.")),
    record: Type.Optional(jsonPointer("Where each of them holds the record. Without it: it is the record.")),
    changes: Type.Optional(
      Type.Boolean({
        description:
          "For `kind: odata`: true: the service is asked to keep track of changes (delta links). Where it does, a poll asks for " +
          "what has changed, also for what was deleted, instead of `since`.",
      }),
    ),
    updatedAt: Type.Optional(
      jsonPointer(
        "When a record was last changed (RFC 3339). A record that differs in nothing else counts as unchanged.",
      ),
    ),
  },
  {
    ...closed,
    description:
      "How the upstream lists records: for `poll` in the primary, and for `match` in a shadow, which takes no notice of " +
      "`since`, `changes` and `updatedAt`.",
  },
);

export type ReconcileConfig = Type.Static<typeof ReconcileConfig>;
export const ReconcileConfig = Type.Object(
  {
    ignore: Type.Optional(Type.Array(jsonPointer("A field."), { description: "Fields that may differ." })),
    tolerate: Type.Optional(
      named(
        patterns.jsonPointer,
        Type.Object(
          {
            absolute: Type.Number({
              minimum: 0,
              description: "The largest difference that counts as equal.",
            }),
          },
          closed,
        ),
        { description: "Fields that may differ by a little." },
      ),
    ),
    duplicateKey: Type.Optional(
      Type.Array(jsonPointer("A field."), {
        description: "Two records equal in all of these are duplicates.",
      }),
    ),
  },
  { ...closed, description: "How records are compared. This version does not act on it yet." },
);

export type FoundConfig = Type.Static<typeof FoundConfig>;
export const FoundConfig = Type.Object(
  {
    items: Type.Optional(jsonPointer("Where the answer holds the records. Without it: the answer itself.")),
    record: Type.Optional(
      jsonPointer(
        "Where each of them, or with `single` the answer, holds the record. Without it: it is the record.",
      ),
    ),
    single: Type.Optional(Type.Boolean({ description: "true: the answer holds one record, no list." })),
    noneStatus: Type.Optional(
      integer(
        "The status that says that there is none, where that is not an empty list. A wrong URL answers 404 too, and then " +
          "records are doubled: leave it out in doubt.",
        { minimum: 404, maximum: 410 },
      ),
    ),
  },
  { ...closed, description: "How `lookup` is answered. Without it: as `list` is." },
);

export type EnvelopeConfig = Type.Static<typeof EnvelopeConfig>;
export const EnvelopeConfig = Type.Object(
  {
    request: Type.Optional(jsonPointer("Where a body holds what is sent, e.g. /data.")),
    answer: Type.Optional(jsonPointer("Where an answer holds the record, e.g. /data.")),
  },
  { ...closed, description: "What stands around a record on its way. Lists have `items` and `record`." },
);

const schemaVersion = (description: string) =>
  integer(description, { minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export type UpcastStep = Type.Static<typeof UpcastStep>;
export const UpcastStep = Type.Object(
  {
    name: text("What the step is called where it fails."),
    from: schemaVersion("The version that it takes."),
    to: schemaVersion("The version that it makes of it: a later one."),
    data: Type.String({
      minLength: 1,
      description:
        "JSONata: the data in the one version → in the other. Of an update that is a merge patch. `base` goes through it " +
        "by itself. It sees `$op`, `$part` (data or base), `$data` and `$base`.",
    }),
  },
  { ...closed, description: "One step from a version of the app's data to a later one." },
);

const entityConfig = Type.Object(
  {
    path: Type.Optional(
      text(
        "The collection, below `baseUrl`. {/projectId} in it stands for that field of the record: /projects/{/projectId}/tasks.",
        patterns.urlPath,
      ),
    ),
    item: Type.Optional(
      text(
        "Where one record is, if not at {path}/{id}: a path and query with {id} in it, and {path} or {/pointer}.",
        patterns.urlTemplate,
      ),
    ),
    id: Type.Optional(jsonPointer("Where the upstream's record holds its ID.")),
    keyType: Type.Optional(
      Type.Enum(["string", "number", "guid"], {
        description:
          "For `kind: odata`: how the key is written, 'quoted' (string) or as it is (number, guid).",
      }),
    ),
    version: Type.Optional(VersionConfig),
    create: CreateConfig,
    update: UpdateConfig,
    delete: DeleteConfig,
    reference: Type.Optional(
      jsonPointer("Where our temp ID is written in the upstream's record, so that it can be looked up."),
    ),
    lookup: Type.Optional(
      text('How to search for our reference, e.g. "{path}?externalRef={tempId}".', patterns.lookup),
    ),
    found: Type.Optional(FoundConfig),
    match: Type.Optional(
      jsonPointer(
        "For shadows: the field of the shadow's record by which the records that it held before it was added are paired " +
          "with the primary's, e.g. /memberNo. Needs `list`. Has to be there when the shadow is added.",
      ),
    ),
    references: Type.Optional(
      named(patterns.jsonPointer, text("The entity that it refers to.", patterns.entityName), {
        description:
          "Fields that refer to other records: JSON Pointer → entity. Without it, a temp ID is recognised in any field.",
      }),
    ),
    list: Type.Optional(ListConfig),
    encoding: Type.Optional(
      Type.Enum(["json", "form"], {
        description:
          "How bodies are written. Without it: json. form: address[city]=Oslo&tags[]=a, null as an empty value.",
      }),
    ),
    envelope: Type.Optional(EnvelopeConfig),
    toUpstream: Type.String({
      default: "$",
      minLength: 1,
      description: "JSONata: the phone's data → the upstream's body. `$` leaves it unchanged, byte for byte.",
    }),
    fromUpstream: Type.String({
      default: "$",
      minLength: 1,
      description: "JSONata: the upstream's record → the phone's data. `$` leaves it unchanged.",
    }),
    schema: Type.Optional(
      schemaVersion(
        "For the primary: the version of the app's data that everything here is written for. A mutation of an older one " +
          "goes through `upcast` first; one of a version that can't be brought to this one is parked. Without it, " +
          "versions are not looked at.",
      ),
    ),
    schemaDefault: Type.Optional(
      schemaVersion("The version of mutations that do not say theirs. Without it: `schema`."),
    ),
    upcast: Type.Optional(
      Type.Array(UpcastStep, {
        description:
          "How mutations that apps of older versions have queued are brought to `schema`, step by step.",
      }),
    ),
    scopes: Type.Array(text("A scope, or one from the record's data.", patterns.recordScope), {
      default: ["org"],
      minItems: 1,
      description: "Who sees a record, e.g. org or user:{/mentor}.",
    }),
    write: Type.Optional(WriteConfig),
    conflict: Type.Enum(["reject", "client-wins", "server-wins", "merge"], {
      default: "reject",
      description:
        "What happens when others have changed the record meanwhile: `reject` and `server-wins` end in a conflict, " +
        "`client-wins` makes the change all the same, `merge` makes it where both sides touched different fields.",
    }),
    reconcile: Type.Optional(ReconcileConfig),
  },
  { ...closed, description: "A kind of record." },
);

/** `path` and `id` are empty where the upstream is a module. */
export type EntityConfig = Always<Type.Static<typeof entityConfig>, "path" | "id">;
export const EntityConfig = Type.Unsafe<EntityConfig>(entityConfig);

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
        description: "At most this many calls a second.",
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

const pushBudget = (platform: string, standard: number) =>
  integer(`Pushes to ${platform} within an hour.`, { default: standard, minimum: 1, maximum: 60 });

export type FcmConfig = Type.Static<typeof FcmConfig>;
export const FcmConfig = Type.Object(
  {
    projectId: text("The Firebase project.", patterns.fcmProject),
    clientEmail: text("The service account's `client_email`."),
    privateKey: text(
      "The service account's `private_key` (PEM), as ${VAR}; line breaks may be written as \\n.",
    ),
    tokenUri: text("Where access tokens are issued.", { default: "https://oauth2.googleapis.com/token" }),
    baseUrl: text("Where messages are sent.", { default: "https://fcm.googleapis.com" }),
    androidPriority: Type.Enum(["normal", "high"], {
      default: "normal",
      description:
        "high wakes a dozing device; Android takes it back from apps that show their user nothing for it.",
    }),
  },
  { ...closed, description: "Firebase Cloud Messaging (HTTP v1), for Android and iOS." },
);

export type WebhookConfig = Type.Static<typeof WebhookConfig>;
export const WebhookConfig = Type.Object(
  {
    url: text("Where pushes are posted: an absolute http or https URL."),
    secret: text(
      "The secret that signs them, `whsec_` and base64, as ${VAR}; several separated by commas sign all.",
    ),
  },
  {
    ...closed,
    description: "A service of your own that wakes apps, called with a Standard Webhooks signature.",
  },
);

export type PushConfig = Type.Static<typeof PushConfig>;
export const PushConfig = Type.Object(
  {
    fcm: Type.Optional(FcmConfig),
    webhook: Type.Optional(WebhookConfig),
    delayMs: integer("A client that reads within this time of a change is not woken for it.", {
      default: 5_000,
      minimum: 100,
      maximum: 3_600_000,
    }),
    reminderMs: integer(
      "A client that was woken and has not read is woken again after this time; each time after twice as long, up to " +
        "32 times.",
      { default: 21_600_000, minimum: 1_000, maximum: 604_800_000 },
    ),
    timeoutMs: integer("How long one call of a push service may take.", {
      default: 10_000,
      minimum: 100,
      maximum: 60_000,
    }),
    budget: Type.Object(
      {
        ios: pushBudget("an iOS device", 2),
        android: pushBudget("an Android device", 10),
        other: pushBudget("a client of neither", 10),
      },
      { ...closed, default: {}, description: "How often one client is woken at most." },
    ),
  },
  { ...closed, description: "How suspended apps are woken when there is something for them to read." },
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
    stalledMs: integer("How long an event stream's reader may take nothing before it is cut off.", {
      default: 30_000,
      minimum: 100,
      maximum: 600_000,
    }),
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
