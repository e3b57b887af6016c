import { Type } from "typebox";

import { patterns } from "./patterns.ts";
import { closed, integer, jsonPointer, text } from "./schema-parts.ts";

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
