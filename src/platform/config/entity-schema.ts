import { Type } from "typebox";

import { CreateConfig, DeleteConfig, UpdateConfig, VersionConfig } from "./operation-schema.ts";
import { patterns } from "./patterns.ts";
import { closed, integer, jsonPointer, named, text, type Always } from "./schema-parts.ts";

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
