import { Type, type Static } from "typebox";

import { uuidPattern } from "../platform/uuid.ts";

const Seq = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });
const Uuid = Type.String({ pattern: uuidPattern });

/**
 * One mutation as far as a fault in it fails the whole batch. The members without a type here are judged for each
 * mutation by itself (`judgeMutation`), so that one bad mutation never blocks an outbox.
 */
export const MutationEnvelope = Type.Object(
  {
    seq: Seq,
    id: Uuid,
    entity: Type.Optional(Type.Unknown({ description: "the entity's name, as configured" })),
    op: Type.Optional(Type.Unknown({ description: "create, update or delete" })),
    recordId: Type.Optional(Type.Unknown({ description: "a temp ID `urn:uuid:<uuid>`, or a server ID" })),
    occurredAt: Type.Optional(Type.Unknown({ description: "when the user made the change, RFC 3339" })),
    baseVersion: Type.Optional(
      Type.Unknown({ description: "the version that the change was based on, or null" }),
    ),
    base: Type.Optional(
      Type.Unknown({
        description:
          "the changed fields as the client last saw them, null for one that was not there; a merge compares them",
      }),
    ),
    data: Type.Optional(Type.Unknown({ description: "the record, or for an update a JSON Merge Patch" })),
    dependsOn: Type.Optional(Type.Unknown({ description: "ids of mutations that this one builds on" })),
    schema: Type.Optional(Type.Unknown({ description: "the app's data version" })),
  },
  { additionalProperties: false },
);
export type MutationEnvelope = Static<typeof MutationEnvelope>;

/** The body of an upload. */
export const BatchEnvelope = Type.Object(
  {
    clientId: Type.String({
      pattern: uuidPattern,
      description: "the installation's UUID, kept in the outbox database itself",
    }),
    previousSeq: Type.Integer({
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      description: "the highest seq that was acknowledged to this client, 0 at first",
    }),
    lostThrough: Type.Optional(
      Type.Union([
        Type.Integer({
          minimum: 0,
          maximum: Number.MAX_SAFE_INTEGER,
          description: "after `sequence-gap`: everything up to this seq that is missing is lost for ever",
        }),
        Type.Null(),
      ]),
    ),
    sentAt: Type.Optional(Type.Union([Type.String({ maxLength: 64 }), Type.Null()])),
    cursor: Type.Optional(
      Type.Unknown({
        description: "also return the changes after it; one that can't be honoured never fails the upload",
      }),
    ),
    mutations: Type.Array(MutationEnvelope, { description: "in ascending seq" }),
  },
  { additionalProperties: false },
);
export type BatchEnvelope = Static<typeof BatchEnvelope>;
