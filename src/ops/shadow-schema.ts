import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { uuidQuery } from "../inbox/result-schema.ts";
import {
  Attempt,
  attemptsPrunedUntil,
  closed,
  Command,
  common,
  errors,
  Given,
  op,
  orNull,
  problem,
  tenant,
  text,
  time,
  uuid,
} from "./operations-schema.ts";

const upstream = Type.String({ description: "The shadow's name in the configuration." });
const change = Type.Object(
  { tenant, upstream, id: uuidQuery("The change's id: the mutation's, if a client made it.") },
  closed,
);

const OpenChange = Type.Object(
  {
    id: Type.String({ format: "uuid", description: "The mutation's id, if a client made the change." }),
    laneId: Type.String(),
    position: Type.Integer({ description: "In the log of what the primary took; of a seed it is negative." }),
    kind: Type.Enum(["change", "seed"], {
      description: "`seed`: the record as it stood when the shadow was added, or stands now.",
    }),
    clientId: orNull(uuid),
    entity: orNull(Type.String()),
    recordId: orNull(Type.String({ description: "The published server ID." })),
    tempId: orNull(Type.String()),
    shadowRecordId: orNull(
      Type.String({ description: "What the shadow calls the record; null: it has none." }),
    ),
    op,
    state: Type.Enum(["sending", "retrying", "waiting", "parked", "held"]),
    blockedBy: orNull(uuid),
    problem,
    possiblySent: Type.Boolean({ description: "Whether a call may have taken effect in the shadow." }),
    firstSentAt: orNull(time()),
    lastSentAt: orNull(time()),
    since: time(),
    attempts: Type.Integer(),
    held: Type.Integer({ description: "How many changes are held right behind it." }),
  },
  closed,
);

export const openChangesSchema = {
  ...common,
  operationId: "listParkedChanges",
  summary: "The changes that wait for a person in a shadow, without their payload, longest first",
  params: Type.Object({ tenant, upstream }, closed),
  querystring: Type.Object(
    {
      heldBehind: Type.Optional(
        uuidQuery("Instead of what is parked: what is held right behind this change."),
      ),
      limit: Type.Integer({ minimum: 1, maximum: 500, default: 100 }),
      after: Type.Optional(Type.String({ maxLength: 200, description: "`next` of the page before." })),
    },
    closed,
  ),
  response: {
    200: Type.Object(
      {
        changes: Type.Array(OpenChange),
        next: Type.Optional(Type.String({ description: "There is another page; ask for it as `after`." })),
      },
      closed,
    ),
    ...errorAnswers(...errors),
  },
};

export const changeFileSchema = {
  ...common,
  operationId: "readChangeFile",
  summary: "All that is known of a change in a shadow, but for its payload",
  params: change,
  response: {
    200: Type.Object(
      {
        id: uuid,
        open: Type.Optional(OpenChange),
        attempts: Type.Array(Attempt, { description: "The latest 100 at the shadow, newest first." }),
        attemptsPrunedUntil,
        commands: Type.Array(Command),
      },
      closed,
    ),
    ...errorAnswers(...errors),
  },
};

export const changeCommandSchema = {
  ...common,
  operationId: "commandChange",
  summary: "Decides about a change in a shadow: send it again, it is applied, or leave it out there",
  description:
    "The lane's owner carries it out, and what was held behind the change goes on after it, in order. Clients hear " +
    "nothing of it. `retry`: what may have been sent is resolved first where the shadow can tell, and sent again where " +
    "only a person can. `applied`: the shadow has it. `reject`: it is left out of the shadow; a record whose create is " +
    "left out is created as a whole by its next change, and one whose delete is left out stays there.",
  params: change,
  body: Type.Object(
    {
      command: Type.Enum(["retry", "applied", "reject"]),
      recordId: Type.Optional(
        text(500, "Of `applied` for a change whose `op` is create: the shadow's own ID of the record."),
      ),
      reason: Type.Optional(text(500, "Why; kept with the command.")),
    },
    closed,
  ),
  response: { 202: Given, ...errorAnswers(...errors, "command-refused") },
};
