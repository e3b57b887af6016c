import type { Connector, Disposition } from "../../src/upstream/connector.ts";
import type { OperationClass } from "../../src/platform/config/operation-schema.ts";

/** A kind of connector with a kind of server, as the suite needs to know them. */
export interface Kind {
  /** The entity that every call names. Its records have `minutes` (a number) and `note` (a text). */
  entity: string;
  /** What these two are called in the upstream's shape, if something else. */
  names?: { minutes: string; note: string };
  /** What every record has to have besides: member → JSON text. */
  also?: Readonly<Record<string, string>>;
  /** What the two can do together; what is not named here is not tested. */
  can: Abilities;
  /** Starts a server that holds nothing, and opens a connector to it. */
  start(options: StartOptions): Promise<Subject>;
}

export interface Abilities {
  /** The classes of each operation that the suite goes through. */
  create: readonly OperationClass[];
  update: readonly OperationClass[];
  delete: readonly OperationClass[];
  /** IDs that need escaping; `create` with a class of `upsert`, `client-id` or `conditional` takes them. */
  ids: readonly string[];
  /** The pointer of the field that holds our reference, where records can be looked up. */
  reference?: string;
  /** Lists come in pages of a size that the server decides. */
  pages: boolean;
  /** `list` can be asked for what has changed since. */
  since: boolean;
  /** The last page of a list names where to ask for what changes after it. */
  changes?: boolean;
  /** Answers that the server has for each of these; `systemic` means that our access is refused. */
  failures: readonly (Disposition | "systemic")[];
  /** JSON texts of values of `minutes` and `note` that arrive, and come back, exactly as they are. */
  exact: { minutes: readonly string[]; note: readonly string[] };
  /** Members keep their order on the way to the server. */
  keyOrder: boolean;
  /** The acting user and the request's ID reach the server. */
  actor: boolean;
  requestId: boolean;
}

export interface StartOptions {
  /** Default: `opaque`. */
  create?: OperationClass;
  update?: OperationClass;
  delete?: OperationClass;
  timeoutMs?: number;
  /** The server's pages are of this size; without it everything comes at once. */
  pageSize?: number;
  /** The server takes no notice of which page it is asked for: it gives everything, or the same page again. */
  ignoresPages?: boolean;
  /** The server answers a search with everything that it holds. */
  ignoresFilters?: boolean;
}

export interface Subject extends AsyncDisposable {
  connector: Connector;
  server: ConformanceServer;
}

/** How the suite steers a server. It never goes through the connector. */
export interface ConformanceServer {
  /** What it holds, oldest first, as JSON text in the shape that the connector gives. */
  records(): readonly string[];
  /** Puts records there, and tells their IDs. */
  seed(texts: readonly string[]): string[];
  /** Changes a record by a merge patch, or with null deletes it, as somebody does who works there. */
  change(id: string, patch: string | null): void;
  /** The next request meets this. */
  next(fault: Fault): void;
  /** Every request that came in whole, those with a fault too. */
  requests(): readonly { actor?: string | undefined; requestId?: string | undefined }[];
  /** Requests that met `hang` and whose client still waits. */
  hanging(): number;
  /** Goes away: connections are cut, further ones refused. */
  stop(): Promise<void>;
}

export type Fault =
  /** The connection is cut before, or after, the change took place. */
  | "lose-request"
  | "lose-reply"
  /** The change takes place; no answer ever comes. */
  | "hang"
  /** The change takes place; the answer is a success that makes no sense in this protocol. */
  | "garbage"
  /** Nothing takes place; the answer is one of those that the connector takes for this. */
  | { answer: Disposition | "systemic" };
