import { Type } from "typebox";

import { uuidPattern } from "../platform/uuid.ts";

const seq = Type.Integer({ description: "The client's own position of the mutation." });
const id = Type.String({ format: "uuid", description: "The mutation's id, in lower case." });

const fields = {
  seq,
  id,
  status: Type.Enum(["applied", "conflict", "rejected", "pending", "parked"], {
    description:
      "`applied`, `conflict` and `rejected` are final. `pending`: it will be replayed. `parked`: a person is on it.",
  }),
  recordId: Type.Optional(Type.String({ description: "The record's server ID." })),
  tempId: Type.Optional(Type.String({ description: "The temp ID that the mutation's create gave." })),
  version: Type.Optional(Type.String({ description: "The record's version after it." })),
  blockedBy: Type.Optional(
    Type.Union([Type.String({ format: "uuid" }), Type.Null()], {
      description:
        "The client's own mutation that a pending one waits for; null also while it waits for somebody else's.",
    }),
  ),
  problem: Type.Optional(Type.Unsafe<object>({ $ref: "Problem#" })),
  current: Type.Optional(
    Type.Object(
      {
        version: Type.String(),
        deleted: Type.Optional(Type.Literal(true)),
        data: Type.Optional(Type.Unsafe<object>({ type: "object", additionalProperties: true })),
      },
      { additionalProperties: false, description: "After a conflict: the record as the token may see it." },
    ),
  ),
};

/** A mutation's outcome, in receipts, lists and the feed. */
export const MutationResultSchema = Type.Object(
  {
    ...fields,
    original: Type.Optional(
      Type.Object(fields, {
        additionalProperties: false,
        description:
          "After `idempotency-key-reused`: the recorded result of the first mutation with this id.",
      }),
    ),
  },
  { $id: "MutationResult", title: "MutationResult", additionalProperties: false },
);

export const mutationResultReference = Type.Unsafe<object>({ $ref: "MutationResult#" });

export const IdMappingSchema = Type.Object(
  {
    entity: Type.String(),
    tempId: Type.String({ description: "`urn:uuid:<uuid>`" }),
    serverId: Type.String(),
  },
  { additionalProperties: false },
);

/** A UUID in a URL. The format alone would also let a `urn:uuid:` through. */
export const uuidQuery = (description: string) =>
  Type.String({ format: "uuid", pattern: uuidPattern, description });
