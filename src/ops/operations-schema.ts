import { Type } from "typebox";

import { errorAnswers } from "../http/problem.ts";
import { uuidQuery } from "../inbox/result-schema.ts";

export const closed = { additionalProperties: false } as const;
export const time = (description?: string) =>
  Type.String({ format: "date-time", ...(description !== undefined && { description }) });
export const orNull = <T extends ReturnType<typeof Type.Unsafe | typeof Type.String>>(schema: T) =>
  Type.Union([schema, Type.Null()]);
export const uuid = Type.String({ format: "uuid" });
export const problem = Type.Optional(Type.Unsafe<object>({ $ref: "Problem#" }));
export const op = Type.Union([Type.Enum(["create", "update", "delete"]), Type.Null()]);

/** Postgres takes no NUL. */
export const text = (lengthMax: number, description: string) =>
  Type.String({ minLength: 1, maxLength: lengthMax, pattern: "^[^\\u0000]*$", description });

export const tenant = Type.String({ description: "The tenant's name in the configuration." });
const mutation = Type.Object({ tenant, id: uuidQuery("The mutation's id.") }, closed);
const reason = Type.Optional(
  text(500, "Why; kept with the command. Of `reject`, the app is told it as the problem's `detail`."),
);

export const common = { tags: ["operations"], security: [{ ops: [] }] };
export const errors = [
  "invalid-request",
  "unauthorized",
  "forbidden",
  "not-found",
  "internal",
  "unavailable",
] as const;

const Parked = Type.Object(
  {
    id: uuid,
    clientId: uuid,
    seq: Type.Integer(),
    entity: Type.String(),
    op,
    state: Type.Literal("parked"),
    problem,
    possiblySent: Type.Boolean({ description: "Whether a call may have taken effect at the upstream." }),
    since: time(),
    attempts: Type.Integer(),
    held: Type.Integer({ description: "How many mutations are held right behind it." }),
  },
  closed,
);

export const pageQuery = Type.Object(
  {
    limit: Type.Integer({ minimum: 1, maximum: 500, default: 100 }),
    after: Type.Optional(Type.String({ maxLength: 200, description: "`next` of the page before." })),
  },
  closed,
);

export const parkedListSchema = {
  ...common,
  operationId: "listParkedMutations",
  summary: "The mutations that wait for a person, without their payload, longest first",
  params: Type.Object({ tenant }, closed),
  querystring: pageQuery,
  response: {
    200: Type.Object(
      {
        mutations: Type.Array(Parked),
        next: Type.Optional(Type.String({ description: "There is another page; ask for it as `after`." })),
      },
      closed,
    ),
    ...errorAnswers(...errors),
  },
};

const Delivery = Type.Object(
  {
    state: Type.Enum(["sending", "retrying", "waiting", "parked", "held"]),
    op,
    since: time(),
    blockedBy: orNull(uuid),
    possiblySent: Type.Boolean(),
    firstSentAt: orNull(time()),
    lastSentAt: orNull(time()),
    problem,
  },
  closed,
);

export const Attempt = Type.Object(
  {
    upstream: Type.String(),
    begunAt: time(),
    durationMs: Type.Integer(),
    disposition: Type.Enum(["applied", "conflict", "reject", "retry", "park", "unclear", "stale"], {
      description:
        "`unclear`: it may have taken effect. `stale`: another worker had the lane by then; it is evidence, and no outcome.",
    }),
    sent: Type.Boolean({ description: "Whether a call left that could have changed something." }),
    status: Type.Union([Type.Integer(), Type.Null()], { description: "The HTTP status of the answer." }),
    recordId: orNull(Type.String()),
    epoch: Type.Integer(),
    worker: Type.String(),
    requestId: Type.String(),
    answer: Type.Union([Type.String(), Type.Null()], { description: "The start of the answer, redacted." }),
  },
  closed,
);

export const Command = Type.Object(
  {
    id: uuid,
    command: Type.Enum(["retry", "applied", "reject", "now"]),
    recordId: orNull(Type.String()),
    reason: orNull(Type.String()),
    givenBy: Type.String({ description: "The `sub` of the operator's token." }),
    givenAt: time(),
    doneAt: orNull(time()),
    result: Type.Union([Type.String(), Type.Null()], {
      description:
        "What the mutation came to by it, or `refused: …`; null until the lane's owner has done it.",
    }),
  },
  closed,
);

export const attemptsPrunedUntil = Type.Union([time(), Type.Null()], {
  description:
    "Attempts from before this moment may be deleted, as their time was over (`retention.attemptDays`); null: none are.",
});

export const mutationFileSchema = {
  ...common,
  operationId: "readMutationFile",
  summary:
    "All that is known of a mutation, but for its payload: where it stands, what was tried, what was decided",
  params: mutation,
  response: {
    200: Type.Object(
      {
        id: uuid,
        clientId: uuid,
        laneId: Type.String(),
        seq: Type.Integer(),
        entity: Type.String(),
        status: Type.Enum(["applied", "conflict", "rejected", "pending", "parked"]),
        recordId: orNull(Type.String()),
        version: orNull(Type.String()),
        problem,
        acceptedAt: time(),
        settledAt: orNull(time()),
        requestId: orNull(Type.String()),
        payloadPruned: Type.Boolean({
          description:
            "Whether what the client sent is deleted, as its time was over (`retention.payloadDays`); its outcome stays.",
        }),
        delivery: Type.Optional(Delivery),
        attempts: Type.Array(Attempt, { description: "The latest 100, newest first." }),
        attemptsPrunedUntil,
        commands: Type.Array(Command),
      },
      closed,
    ),
    ...errorAnswers(...errors),
  },
};

export const Given = Type.Object({ commandId: uuid }, closed);

export const commandSchema = {
  ...common,
  operationId: "commandMutation",
  summary: "Decides about a mutation: send it again, it is applied, or give it up",
  description:
    "The lane's owner carries it out, in order, and what was held behind the mutation goes on after it. `retry`: as if " +
    "freshly due; what may have been sent is resolved first where the upstream can tell, and sent again where only a " +
    "person can. `applied`: the upstream has it. `reject`: it is given up, and what depends on its create falls with it.",
  params: mutation,
  body: Type.Object(
    {
      command: Type.Enum(["retry", "applied", "reject"]),
      recordId: Type.Optional(text(500, "Of `applied` for a create: the upstream's ID of the record.")),
      reason,
    },
    closed,
  ),
  response: { 202: Given, ...errorAnswers(...errors, "command-refused") },
};

export const laneNowSchema = {
  ...common,
  operationId: "lookAtLaneNow",
  summary: "Makes a lane due at once, though it is in a backoff",
  params: Type.Object(
    {
      tenant,
      laneId: text(200, "A client's lane has the clientId as its name; a shadow's is named by its changes."),
    },
    closed,
  ),
  body: Type.Optional(Type.Object({ reason }, closed)),
  response: { 202: Given, ...errorAnswers(...errors) },
};
