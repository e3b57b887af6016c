import { Type } from "typebox";

import { mutationResultReference } from "../inbox/result-schema.ts";

const closed = { additionalProperties: false };
const entity = Type.String();
const id = Type.String({ description: "The record's server ID." });

export const shownRecordMembers = {
  entity,
  id,
  version: Type.String(),
  data: Type.Unsafe<object>({ type: "object", additionalProperties: true }),
  tempId: Type.Optional(Type.String({ description: "For the client that created it." })),
};

export const ChangeSchema = Type.Union(
  [
    Type.Object(
      { type: Type.Literal("upsert"), ...shownRecordMembers },
      { ...closed, description: "The record as it stands now." },
    ),
    Type.Object({ type: Type.Literal("delete"), entity, id }, { ...closed, description: "It was deleted." }),
    Type.Object(
      { type: Type.Literal("revoke"), entity, id },
      { ...closed, description: "It left the reader's scopes: drop it." },
    ),
    Type.Object(
      { type: Type.Literal("outcome"), result: mutationResultReference },
      { ...closed, description: "A mutation of the reading client has its outcome, or was parked." },
    ),
  ],
  { $id: "Change", title: "Change" },
);

export const changeReference = Type.Unsafe<object>({ $ref: "Change#" });

export const cursorSchema = Type.String({ description: "Opaque; where to go on from." });
