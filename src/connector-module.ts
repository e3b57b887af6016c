/**
 * What a connector of your own is written against: `module: ./connectors/x.ts` in the configuration. The whole of it is
 * in docs/module-connectors.md.
 *
 * Types only, and no import: a module needs nothing of the gateway when it runs.
 *
 *     import type { ConnectorModule } from "tidegate/connector";
 *     export default { entities: { … }, open(settings, context) { … } } satisfies ConnectorModule;
 */
export interface ConnectorModule {
  /**
   * The kinds of records that the upstream has, and what it can guarantee for each: what a connector says here decides
   * what happens after a call of which nobody knows the end. In doubt say less.
   */
  entities: Record<string, Abilities> | ((settings: Settings) => Record<string, Abilities>);
  /** What is wrong with the settings, when the configuration is read. Without it they are taken as they are. */
  check?(settings: Settings): readonly SettingsProblem[];
  /** Opens the connector, once for each upstream that names the module. Nothing is connected before the first call. */
  open(settings: Settings, context: Context): Connector;
}

/** `settings` of the configuration, `${VAR}`s replaced. */
export type Settings = Readonly<Record<string, unknown>>;

export interface SettingsProblem {
  /** The path of keys below `settings`: ["numbers", "from"]. */
  at: readonly (string | number)[];
  message: string;
}

/**
 * What the upstream guarantees for a repeated call:
 * - `idempotency-key`: it recognises `idempotencyKey`, for `keyTtlMs` or for ever, and does nothing twice. A conflict
 *   in answer to a repeat means that the first call is still at work.
 * - `upsert`: it creates or changes by our reference, or by the ID that we choose.
 * - `client-id`: it takes the ID that we choose, and refuses one that exists as a conflict. For updates and deletes: a
 *   repeat does no harm.
 * - `conditional`: it changes a record only if it has the given version, creates only what is not there; else a conflict.
 * - `lookup`: it can be searched for our reference (creates) or read (updates), and tells thereby what has happened.
 * - `opaque`: nothing of the kind. An unclear call is a person's to decide.
 */
export type OperationClass = "idempotency-key" | "upsert" | "client-id" | "conditional" | "lookup" | "opaque";

/** Of one entity. An operation that is missing is not offered to apps; one `class` in the configuration may only be `opaque`. */
export interface Abilities {
  /** `choosesId`: `upsert` and `conditional` creates are given an ID too, under which the record is then found. */
  create?: { class: OperationClass; keyTtlMs?: number; choosesId?: boolean };
  /** `sends`: whether the connector uses the change (`patch`, as without it) or the whole record after it (`body`). */
  update?: { class: OperationClass; keyTtlMs?: number; sends?: "change" | "record" };
  delete?: { class: OperationClass; keyTtlMs?: number };
  /** The field that holds our reference, as a JSON Pointer: written into `body` before the connector gets it. */
  reference?: string;
  /** Records can be searched by that reference: the connector has `lookup`. */
  lookup?: boolean;
  /**
   * Records can be listed: the connector has `list`. `since`: also those that have changed since a time. `updatedAt`: the
   * field that says when a record was last changed (RFC 3339).
   */
  list?: boolean | { since?: boolean; updatedAt?: string };
}

/** What the gateway gives a connector besides its settings. */
export interface Context {
  /** The upstream's name in the configuration. */
  upstream: string;
  /** The time that one call may take, and calls at a time in this process: both are kept without your help. */
  timeoutMs: number;
  concurrency: number;
  /** Of the gateway's log. Texts are cut, addresses and long numbers masked; still, write nothing of any record. */
  log: Log;
  failure: Failures;
  /** Calls by HTTP as the configuration says (`baseUrl`, `auth`, `tls`, `proxy`, `sign`, `headers`); undefined without a `baseUrl`. */
  http: Http | undefined;
}

type Facts = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Log {
  debug(message: string, facts?: Facts): void;
  info(message: string, facts?: Facts): void;
  warn(message: string, facts?: Facts): void;
  error(message: string, facts?: Facts): void;
}

/**
 * What a connector throws. Each speaks of the whole call, whatever requests it was made of. Everything else that is thrown
 * means: it may have taken effect.
 *
 *     throw context.failure.refused("reject", "the date is in a closed period", { status: 422 });
 */
export interface Failures {
  /** Nothing has left for the upstream: refused connection, unknown name, no login. It is tried again. */
  notSent(message: string, facts?: FailureFacts): Error;
  /** The upstream has answered, and what it says means that nothing was done. */
  refused(disposition: Disposition, message: string, facts?: FailureFacts): Error;
  /** It may have taken effect: cut off, an answer that can't be read, an error of the server. */
  unclear(message: string, facts?: FailureFacts): Error;
  /** What a status of 300 or above means, by the configuration's `statuses` or else by HTTP; the answer is kept as evidence. */
  ofStatus(operation: Operation, answer: HttpAnswer): Error;
}

/**
 * - `retry`: later again; with `systemic` the upstream as a whole is failing and its breaker opens.
 * - `conflict`: the record is not as expected, or is gone (`status: 404`).
 * - `reject`: the data is not acceptable, and never will be. The app is told.
 * - `park`: unknown; a person decides.
 */
export type Disposition = "retry" | "conflict" | "reject" | "park";

export interface FailureFacts {
  status?: number;
  retryAfterMs?: number;
  /** Our access or the upstream as a whole is at fault, not this record. */
  systemic?: boolean;
  /** What the upstream said, for the evidence: cut and redacted. */
  excerpt?: string;
}

export type Operation = "create" | "update" | "delete" | "read" | "lookup" | "list";

/** One upstream. Never retries, and never decides what becomes of a mutation. */
export interface Connector {
  /** Creates a record. Resolves with what is known of it; undefined when the upstream does not say which it is. */
  create(call: CreateCall): Promise<UpstreamRecord | undefined>;
  /** Changes the record; undefined when the answer tells neither its state nor its version. */
  update(call: UpdateCall): Promise<UpstreamRecord | undefined>;
  /** Deletes the record. One that is gone is `refused("conflict", …, { status: 404 })`. */
  delete(call: DeleteCall): Promise<void>;
  /** Reads one record; undefined when the upstream says that there is none. */
  read(call: ReadCall): Promise<UpstreamRecord | undefined>;
  /** Every record that carries the reference, looked for on every page. */
  lookup?(call: LookupCall): Promise<readonly UpstreamRecord[]>;
  /** One page of the entity's records. */
  list?(call: ListCall): Promise<Page>;
  /** Closes what is open. Calls in flight are given up before. */
  close?(): Promise<void> | void;
}

/** What every call has. */
export interface Call {
  entity: string;
  /** Fires when the call is given up: at its deadline, or since its caller stops. Nothing may be sent from then on. */
  signal: AbortSignal;
  /** What is left until the deadline. */
  remainingMs(): number;
  /**
   * Throws when the call may not go on; let that through. `http` asks before each request. With a transport of your own
   * ask directly before each request is written: a process that was suspended may have lost the right to send.
   */
  mayStart(): void;
  /** The acting user. */
  actor?: string | undefined;
  /** The upload's, for the upstream's logs. */
  requestId?: string | undefined;
}

export interface CreateCall extends Call {
  /**
   * The record in the upstream's shape, as JSON text: mapped, references substituted, ours written. Numbers have the
   * digits that the phone sent: JSON.parse would round long ones.
   */
  body: string;
  /** The ID to create it under (`client-id`, `choosesId`). */
  id?: string | undefined;
  /** The same for a repeat of this call, and never for another. */
  idempotencyKey: string;
}

export interface UpdateCall extends Call {
  id: string;
  /** The change, as a JSON Merge Patch in the upstream's shape: null takes a field away. */
  patch: string;
  /** With `sends: "record"`, the whole record after the change, in the upstream's shape. */
  body: string;
  /** The version that must still be current (`conditional`); undefined: whatever it is. */
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
  /** `urn:uuid:…`, as it was written at `reference`. */
  tempId: string;
}

export interface ListCall extends Call {
  /** The `next` of the page before; undefined for the first. */
  after?: string | undefined;
  /** Of a first page: only what has changed since then. */
  since?: Date | undefined;
}

export interface Page {
  records: readonly UpstreamRecord[];
  /** Names the page that follows; undefined when this is the last. It is kept, and may be asked for by another process. */
  next?: string | undefined;
}

/** A record as the upstream holds it. */
export interface UpstreamRecord {
  id: string;
  /** The upstream's version, for `conditional` operations. */
  version?: string | undefined;
  /** The record as JSON text: an object. Needed of `read`, `lookup` and `list`. */
  body?: string | undefined;
}

export interface Http {
  /**
   * Sends one request, at most once, and resolves with the answer whatever its status. Throws one of the documented
   * failures, by what really happened on the socket; let it through.
   */
  send(call: Call, request: HttpRequest): Promise<HttpAnswer>;
}

export interface HttpRequest {
  method: string;
  /** Path and query below `baseUrl`, percent-encoded; empty for `baseUrl` itself. */
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: string;
  /**
   * It changes nothing, whatever its method: true for a SOAP request that reads. Once a request that may change something
   * was answered, a later failure of the same call no longer means that nothing was done. Without it: of GET and HEAD.
   */
  reads?: boolean;
}

export interface HttpAnswer {
  status: number;
  headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  body: Uint8Array;
}
