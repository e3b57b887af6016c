/**
 * The contract between replay and a system of record.
 *
 * A connector speaks the upstream's protocol and nothing else: it never sees the inbox or the database, never
 * retries and never decides what a failure means for a mutation. Bodies are JSON *text*, so that what the phone
 * sent (numbers beyond 2^53, key order, escapes) reaches the upstream unchanged.
 */
export interface Connector {
  /** Creates a record. Resolves with what the upstream answered; undefined when the answer names no record. */
  create(call: CreateCall): Promise<UpstreamRecord | undefined>;
  /** Changes the record `call.id`; undefined when the answer tells neither its state nor its version. */
  update(call: UpdateCall): Promise<UpstreamRecord | undefined>;
  /** Deletes the record `call.id`. A 404 or 410 is a failure with that status here; the engine decides. */
  delete(call: DeleteCall): Promise<void>;
  /** Reads one record; undefined when the upstream says that there is none. */
  read(call: ReadCall): Promise<UpstreamRecord | undefined>;
  /**
   * Everything the upstream returns when asked for `tempId`. Answers may be strangers' records: some servers answer
   * an unknown filter with the whole list. Only those that carry the reference are returned.
   */
  lookup(call: LookupCall): Promise<UpstreamRecord[]>;
  /**
   * One page of the entity's records. A page may be shorter than was asked for; an empty one is the last. A server that
   * ignores what page it is asked for answers the same one for ever: who goes through the pages has to notice that.
   */
  list(call: ListCall): Promise<UpstreamPage>;
  /** Closes the connections. Calls in flight fail. */
  close(): Promise<void>;
}

/** What every call carries. */
export interface Call {
  entity: string;
  /**
   * Throws when the call may not start any more (the lane's lease would not outlive it). Called last, directly
   * before the first byte is written to the socket; a throw here means that nothing was sent.
   */
  mayStart?: (() => void) | undefined;
  /** Told the status of the answer, whatever it says. */
  onStatus?: ((status: number) => void) | undefined;
  /** Aborts the call; it then fails as ambiguous if a byte was written. */
  signal?: AbortSignal | undefined;
  /** The acting user, for the configured header. */
  actor?: string | undefined;
  /** Carried to the upstream as `X-Request-Id`. */
  requestId?: string | undefined;
}

export interface CreateCall extends Call {
  /** The record in the upstream's shape, as JSON text: mapped, references substituted, our reference written. */
  body: string;
  /** The ID that we choose, for `client-id` upstreams. */
  id?: string | undefined;
  idempotencyKey: string;
}

/** Only what the entity's update sends is mapped: `patch` for a change, `body` for the whole record. */
export interface UpdateCall extends Call {
  id: string;
  /** The change as a JSON Merge Patch in the upstream's shape. */
  patch: string;
  /** The record after the change, in the upstream's shape. */
  body: string;
  /** The upstream's version that must still be current (`conditional`). */
  version?: string | undefined;
  idempotencyKey: string;
}

export interface DeleteCall extends Call {
  id: string;
  version?: string | undefined;
  idempotencyKey: string;
}

export interface ReadCall extends Call {
  id: string;
}

export interface LookupCall extends Call {
  /** `urn:uuid:…`, as it was written at the entity's `reference` pointer. */
  tempId: string;
}

export interface ListCall extends Call {
  /** The `next` of the page before, or the `changes` of an earlier list; undefined for the first. */
  after?: string | undefined;
  /** Of a first page: only what has changed since then, by the upstream's clock, where the entity's list can tell. */
  since?: Date | undefined;
}

export interface UpstreamPage {
  records: UpstreamRecord[];
  /** IDs of records that were changed, made or deleted: only named. */
  changed?: string[] | undefined;
  /** Names the page that follows, to this connector alone; undefined when there is none. */
  next: string | undefined;
  /**
   * Of the last page: names, to this connector alone, the list of what changes after this one. A page of that list has no
   * `records`, only `changed`. Undefined where the upstream keeps no track of changes.
   */
  changes?: string | undefined;
}

/** A record as the upstream holds it. */
export interface UpstreamRecord {
  id: string;
  /** The upstream's own version: an ETag or a version field. */
  version: string | undefined;
  /** The record's JSON text as the upstream sent it; undefined when it only named the record (204, a Location). */
  body: string | undefined;
}

/** What an engine does about a failed call; see `docs/guarantees.md`. */
export type Disposition = "retry" | "conflict" | "reject" | "park";

/**
 * A failed call to an upstream, classified by what really happened on the socket.
 */
export class UpstreamError extends Error {
  /**
   * Whether the effect may have taken place all the same.
   * `not-sent`: refused, DNS, TLS, or stopped before the first byte. `refused`: an answer that means that nothing was
   * done (documented 4xx, 429). `ambiguous`: bytes were written and no answer came that tells.
   */
  readonly certainty: "not-sent" | "refused" | "ambiguous";
  readonly disposition: Disposition;
  /** True when it is the upstream as a whole, or our access to it, that fails (401, 403): opens the breaker. */
  readonly systemic: boolean;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  /** A short excerpt of the answer for the evidence: redacted, at most 500 characters; never logged. */
  readonly excerpt: string | undefined;

  constructor(
    message: string,
    facts: {
      certainty: UpstreamError["certainty"];
      disposition: Disposition;
      systemic?: boolean;
      status?: number | undefined;
      retryAfterMs?: number | undefined;
      excerpt?: string | undefined;
      cause?: unknown;
    },
  ) {
    super(message, facts.cause === undefined ? {} : { cause: facts.cause });
    this.name = "UpstreamError";
    this.certainty = facts.certainty;
    this.disposition = facts.disposition;
    this.systemic = facts.systemic ?? false;
    this.status = facts.status;
    this.retryAfterMs = facts.retryAfterMs;
    this.excerpt = facts.excerpt;
  }
}

/** A call that the breaker did not let out: it says nothing about the mutation. */
export class BreakerOpen extends UpstreamError {}
