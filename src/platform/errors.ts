/**
 * The closed list of what can go wrong, with its HTTP status, its cause and what the operator does about it.
 *
 * The same codes are the `type` of a problem+json answer (`urn:tidegate:problem:<code>`) and of the `problem` inside
 * a mutation's result. `docs/errors.md` is generated from this table.
 */
export const errorCodes = {
  "invalid-request": {
    status: 400,
    title: "The request does not follow the protocol",
    cause: "Broken JSON, a missing or invalid field of the envelope, an unknown field, or seqs out of order.",
    action: "None on the server. The `detail` names the field; the app has to be corrected.",
  },
  unauthorized: {
    status: 401,
    title: "The token was not accepted",
    cause: "No bearer token, an expired or forged one, or one for another issuer, audience or algorithm.",
    action:
      "None for single clients, which refresh and retry. Many at once: check `auth` in the configuration.",
  },
  "signature-invalid": {
    status: 401,
    title: "The event's signature was not accepted",
    cause: "An event of an upstream without a signature, with a wrong one, or from another time.",
    action:
      "Compare the secret and the form of the signature under `events` with the upstream's, and both clocks.",
  },
  forbidden: {
    status: 403,
    title: "The token does not allow this",
    cause: "The token's role or scopes do not cover the request.",
    action: "Check the rules in the configuration if the user should have been allowed.",
  },
  "client-owned": {
    status: 403,
    title: "This clientId belongs to another user",
    cause: "A clientId belongs to the user who used it first, and another user's token came with it.",
    action: "None. The app creates a clientId for each user.",
  },
  "not-found": {
    status: 404,
    title: "There is no such thing here",
    cause: "It does not exist, or lies outside the token's scopes; the answer is the same.",
    action: "Check the record's scopes if the user should have seen it.",
  },
  "sequence-gap": {
    status: 409,
    title: "A batch before this one is missing",
    cause:
      "The client's `previousSeq` is ahead of what this gateway has: a batch, or the server's memory, was lost.",
    action: "None: the client sends again from `lastSeq`. Many at once after a restore are expected.",
  },
  "sequence-reused": {
    status: 409,
    title: "These positions were used for other mutations",
    cause: "An unknown mutation id at or below the last seq: a restored phone backup or a cloned device.",
    action:
      "None: the client takes a new clientId, renumbers from 1 and sends again. What the gateway had of it before stays the " +
      "old client's; what is not final then, the client asks for at `/v1/mutations/{id}`.",
  },
  "cursor-expired": {
    status: 410,
    title: "The cursor can't be honoured",
    cause:
      "Its changes were compacted, it is of another epoch, another scope set or from the future, or it is damaged.",
    action:
      "None: the client starts over from a snapshot. Many at once: look for a restore or a lost cursor secret.",
  },
  "request-too-large": {
    status: 413,
    title: "The request is larger than the limits",
    cause: "More mutations, or more decoded bytes, than `limits` in the answer allow.",
    action: "None: the client splits the batch.",
  },
  "unsupported-media-type": {
    status: 415,
    title: "The body's type or encoding is not supported",
    cause: "Another content type than JSON, or another encoding than gzip.",
    action: "None: the app has to be corrected.",
  },
  internal: {
    status: 500,
    title: "Something is broken in the gateway",
    cause: "A broken invariant; the log has the stack under the request ID.",
    action: "Report it with the request ID. Nothing of the request was taken; the client retries.",
  },
  unavailable: {
    status: 503,
    title: "The gateway can't take requests at the moment",
    cause: "Postgres is unreachable, or the process is stopping.",
    action: "Check Postgres; clients honour `Retry-After` and keep their outbox.",
  },
  "not-ready": {
    status: 503,
    title: "The system of record has not been read yet",
    cause:
      "The first reading of the primary's records (`poll`) has not come to its end; a snapshot would lack some.",
    action:
      "None if it comes to its end; see the log for an upstream that can't be asked. Clients honour `Retry-After`.",
  },
  "idempotency-key-reused": {
    status: 409,
    title: "This mutation id was used for other content",
    cause:
      "A mutation with the same id but other content is recorded; `original` holds its result and stands.",
    action: "The app rewrites queued mutations, which it must not.",
  },
  "invalid-mutation": {
    status: 422,
    title: "The mutation does not make sense",
    cause: "A wrong type or a missing field inside one mutation; the rest of its batch went on.",
    action: "The `detail` names the field; the app has to be corrected.",
  },
  "mutation-too-large": {
    status: 413,
    title: "The mutation is larger than the limit",
    cause: "One mutation is over its size limit or nested too deeply; its payload was not kept.",
    action: "The app has to make smaller mutations, or the limit has to be raised.",
  },
  "unknown-entity": {
    status: 422,
    title: "This entity is not configured",
    cause: "The tenant's primary has no such entity, or does not allow this operation on it.",
    action: "Add the entity to the configuration if it should be there.",
  },
  "unknown-reference": {
    status: 422,
    title: "A temp ID that nobody has created",
    cause: "The mutation names a temp ID for which no create is recorded in the tenant.",
    action: "None: the app lost the create, or refers to a record of another tenant.",
  },
  "temp-id-in-use": {
    status: 409,
    title: "This temp ID already names a record",
    cause: "A second create of a temp ID whose first create stands.",
    action: "None: the app has to use a new temp ID for a new record.",
  },
  "dependency-failed": {
    status: 424,
    title: "What this mutation builds on was not done",
    cause: "It refers to a record whose create was rejected or ended in a conflict.",
    action: "See the outcome of the mutation named in `detail`.",
  },
  "not-allowed": {
    status: 403,
    title: "The user may not make this change",
    cause:
      "The entity's `write` rules do not give this operation, or this field, to the token's scopes and roles.",
    action: "Check the entity's `write` rules if the user should have been allowed.",
  },
  "rejected-by-operator": {
    status: 422,
    title: "A person has given this change up",
    cause: "The mutation was parked or held, and an operator decided that it is not made; `detail` says why.",
    action: "None: the decision, and who made it, is in the mutation's commands.",
  },
  "command-refused": {
    status: 409,
    title: "The mutation is not in a state for this",
    cause: "It has its outcome, is on its way, or is being sent; there is nothing for a person to decide.",
    action: "Look at the mutation again; `detail` says where it stands.",
  },
  "push-not-configured": {
    status: 422,
    title: "The tenant has no such push service",
    cause:
      "A client registered for wake-up push by a service that the tenant's `push` does not have. Nothing was taken.",
    action: "Configure the service if it should be there; `/v1/capabilities` says which ones are.",
  },
  "schema-unsupported": {
    status: 422,
    title: "The data is of a version that can't be brought to the present one",
    cause:
      "The mutation's `schema` is newer than the entity's, older than `upcast` reaches or not a version, or a step of " +
      "`upcast` can't take the data. Nothing was sent.",
    action:
      "See `detail` and docs/upcasting.md: correct the configuration and send again, enter it by hand and say so, or give it up.",
  },
  "upstream-rejected": {
    status: 422,
    title: "The system of record refused the data",
    cause: "The upstream answered that the mutation's data is not acceptable.",
    action: "See the upstream's answer in the evidence; the user corrects the data.",
  },
  "upstream-conflict": {
    status: 409,
    title: "The record has changed in the meantime",
    cause: "The record's version is another one than the mutation was based on.",
    action: "None: the client resolves it with a new mutation based on `current`.",
  },
  "server-wins": {
    status: 409,
    title: "The record has changed in the meantime, and stays as it is",
    cause: "As `upstream-conflict`, of an entity with `conflict: server-wins`: the change was dropped.",
    action: "None: the client shows `current`.",
  },
  "upstream-unavailable": {
    status: 503,
    title: "The system of record can't be reached",
    cause: "The network, the upstream, or its breaker; the mutation is retried with backoff.",
    action: "Check the upstream. Nothing is lost; lanes drain when it is back.",
  },
  "upstream-unclear": {
    status: 502,
    title: "It is not known whether the upstream took the change",
    cause: "A call ended without a usable answer on an upstream that can't tell whether it took effect.",
    action: "Compare the record in the upstream with the evidence and decide: done, send again, or give up.",
  },
  "match-unclear": {
    status: 409,
    title: "It is not clear which of a shadow's records this is",
    cause:
      "Several records that the shadow held before have the value at `match`, another record was paired with the one that " +
      "has it, or the list of these records was made under another `match` or another secret.",
    action:
      "See docs/runbooks/parked-mutations.md: correct the shadow's records and send again, name the record, or leave the " +
      "change out.",
  },
  "upstream-unexpected": {
    status: 502,
    title: "The upstream answered in a way that nobody foresaw",
    cause: "A status or body that the disposition map does not cover, or a mapping that failed.",
    action:
      "See the evidence; correct the configuration, the mapping or the upstream, then release the mutation.",
  },
  "config-invalid": {
    status: 500,
    title: "The configuration is not valid",
    cause: "The configuration file or the environment does not follow its schema.",
    action:
      "Correct every place that the message names by file, line and path; the gateway does not start before.",
  },
  "database-unreachable": {
    status: 503,
    title: "Postgres can't be reached",
    cause: "A wrong DATABASE_URL, a server that is down, or wrong credentials.",
    action: "Check DATABASE_URL and the server; the message has the driver's own error.",
  },
  "database-version": {
    status: 500,
    title: "The database does not fit this version",
    cause: "Migrations are missing, or the database is newer than the code.",
    action: "Run `npm run migrate` as the owner, or start the version that migrated the database.",
  },
  "recovery-needed": {
    status: 503,
    title: "The database is not the one that was served",
    cause: "It was restored, or failed over to a standby, and may have forgotten what was done since.",
    action:
      "Follow docs/runbooks/restore-and-failover.md: `npm run recover -- --yes`. Until then uploads are taken and nothing " +
      "is replayed.",
  },
  "redis-unreachable": {
    status: 503,
    title: "Redis can't be reached",
    cause: "A wrong REDIS_URL, or a server that is down.",
    action: "Check REDIS_URL and the server.",
  },
  "data-dir-in-use": {
    status: 500,
    title: "Another gateway uses this data folder",
    cause: "A running process holds TIDEGATE_DATA_DIR.",
    action: "Stop the process named in the message, or use another TIDEGATE_DATA_DIR.",
  },
  "port-in-use": {
    status: 500,
    title: "The port is taken",
    cause: "Another process listens on PORT.",
    action: "Stop it, or set another PORT.",
  },
} as const satisfies Record<string, { status: number; title: string; cause: string; action: string }>;

export type ErrorCode = keyof typeof errorCodes;

/** An expected failure with a stable code. A broken invariant is a plain `Error` instead: logged, answered as 500. */
export class TidegateError extends Error {
  readonly code: ErrorCode;
  /** Further members of the problem document, e.g. `lastSeq`. Never payload. */
  readonly extensions: Record<string, unknown>;

  constructor(
    code: ErrorCode,
    detail: string,
    { cause, extensions = {} }: { cause?: unknown; extensions?: Record<string, unknown> } = {},
  ) {
    super(detail, cause === undefined ? {} : { cause });
    this.name = "TidegateError";
    this.code = code;
    this.extensions = extensions;
  }
}
