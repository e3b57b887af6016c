import { Pool, type Dispatcher } from "undici";

import { whenAborted } from "../platform/when-aborted.ts";
import { UpstreamError } from "./connector.ts";
import { decoded } from "./http/decode.ts";
import { connectThrough, proxyAuthorization } from "./http/proxy.ts";
import { secureContextOf, type TlsMaterial } from "./http/tls.ts";

export interface HttpClientOptions {
  /** Sockets at most; also the number of calls that can be on the wire at once. */
  connections: number;
  /** From the first byte written to the last byte read. Waiting for a socket does not count. */
  timeoutMs: number;
  /** As it comes, and again decoded. */
  answerBytesMax?: number;
  tls?: TlsMaterial | undefined;
  /** An https origin is reached by a tunnel through it, an http one by asking it for the whole URL. */
  proxy?: string | undefined;
}

export interface HttpRequest {
  method: string;
  /** Path and query, percent-encoded. */
  path: string;
  /** Names and values in turn. */
  headers: string[];
  body?: string | undefined;
  mayStart?: (() => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface HttpAnswer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

export interface HttpClient {
  /**
   * Sends one request, at most once, and resolves with the answer whatever its status. Redirects are not followed.
   *
   * An answer of status 300 or above counts from its head on: a body cut short does not change what it says.
   * @throws {UpstreamError} `not-sent` when no byte was written, `ambiguous` when the request was (perhaps partly)
   * written and no complete answer came.
   */
  send(request: HttpRequest): Promise<HttpAnswer>;
  /** Closes every connection at once; calls on the wire fail as ambiguous, waiting ones as not sent. */
  close(): Promise<void>;
}

const MIB = 1024 * 1024;
const CONNECT_MS_MAX = 10_000;
const IDLE_MS_MAX = 1_000;

/** A keep-alive pool to one origin, one request at a time on each connection. Nothing is connected before the first. */
export function openHttpClient(
  origin: string,
  { connections, timeoutMs, answerBytesMax = 4 * MIB, tls, proxy }: HttpClientOptions,
): HttpClient {
  const isForwarded = proxy !== undefined && new URL(origin).protocol === "http:";
  const timeout = Math.min(timeoutMs, CONNECT_MS_MAX);
  const secure = secureContextOf(tls);
  const isTunnelled = proxy !== undefined && !isForwarded;
  const pool = new Pool(isForwarded ? new URL(proxy).origin : origin, {
    connections,
    pipelining: 1,
    // On HTTP/2 a refused stream is sent again without a word, and a call shares its connection's fate with others.
    allowH2: false,
    connect: isTunnelled ? connectThrough(proxy, { ...secure, timeoutMs: timeout }) : { ...secure, timeout },
    // One deadline of ours covers the whole exchange; these two would only cover its parts.
    headersTimeout: 0,
    bodyTimeout: 0,
    // Of servers that don't tell when they close an idle connection, some do so after two seconds; a call that crosses the
    // close is ambiguous.
    keepAliveTimeout: IDLE_MS_MAX,
  });
  const outgoing = isForwarded ? forwardedBy(proxy, origin) : (request: HttpRequest) => request;
  return {
    send: (request) => exchange(pool, outgoing(request), { timeoutMs, answerBytesMax }),
    close: () => pool.destroy(),
  };
}

function forwardedBy(proxy: string, origin: string): (request: HttpRequest) => HttpRequest {
  const { host } = new URL(origin);
  const headers = ["host", host, ...proxyAuthorization(proxy)];
  return (request) => ({
    ...request,
    path: `${origin}${request.path}`,
    headers: [...headers, ...request.headers],
  });
}

interface Bounds {
  timeoutMs: number;
  answerBytesMax: number;
}

/** What is known of one exchange while it goes on. */
interface Progress {
  /** Set once the request is about to be written; from then on it may have arrived. */
  controller: Dispatcher.DispatchController | undefined;
  settled: boolean;
  status: number;
  headers: HttpAnswer["headers"];
  chunks: Buffer[];
  bytes: number;
}

function exchange(pool: Pool, request: HttpRequest, bounds: Bounds): Promise<HttpAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
  const progress: Progress = {
    controller: undefined,
    settled: false,
    status: 0,
    headers: {},
    chunks: [],
    bytes: 0,
  };
  const { signal } = request;
  let deadline: NodeJS.Timeout | undefined;
  let forget: (() => void) | undefined;
  const settle = (error?: unknown): void => {
    if (progress.settled) return;
    progress.settled = true;
    clearTimeout(deadline);
    forget?.();
    if (error === undefined || progress.status >= 300) resolve(decoded(answerOf(progress), bounds));
    else reject(failureOf(error, progress.controller !== undefined));
  };
  const giveUp = (reason: Error): void => {
    if (progress.controller) progress.controller.abort(reason);
    else settle(reason);
  };
  const onAbort = (): void => giveUp(new Error("stopped by the caller", { cause: signal?.reason }));
  const startDeadline = (): void => {
    deadline = setTimeout(
      // An answer that came while this process was busy is read before the deadline counts.
      () => setImmediate(giveUp, new Error(`no complete answer within ${bounds.timeoutMs} ms`)),
      bounds.timeoutMs,
    );
  };

  if (signal?.aborted) onAbort();
  else {
    forget = signal && whenAborted(signal, onAbort);
    const { method, path, headers, body = null } = request;
    pool.dispatch(
      { method, path, headers, body, idempotent: false },
      handlerOf(request, progress, bounds, startDeadline, settle),
    );
  }
  return promise;
}

function handlerOf(
  { mayStart }: HttpRequest,
  progress: Progress,
  { answerBytesMax }: Bounds,
  startDeadline: () => void,
  settle: (error?: unknown) => void,
): Dispatcher.DispatchHandler {
  return {
    // undici calls this on a connected socket, in the same tick as the write; what it throws keeps the request off
    // the socket.
    onRequestStart(controller) {
      if (progress.settled) throw new Error("given up before it was sent");
      if (progress.controller) throw new Error("a request is never sent twice");
      mayStart?.();
      progress.controller = controller;
      startDeadline();
    },
    onResponseStart(_controller, status, headers) {
      progress.status = status;
      progress.headers = headers;
    },
    onResponseData(controller, chunk) {
      progress.bytes += chunk.length;
      if (progress.bytes > answerBytesMax) controller.abort(new Error("the answer is too large"));
      else progress.chunks.push(chunk);
    },
    onResponseEnd: () => settle(),
    onResponseError: (_controller, error) => settle(error),
  };
}

function answerOf({ status, headers, chunks }: Progress): HttpAnswer {
  return { status, headers, body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) };
}

/** The original error is not kept as the cause: a parser's error carries the bytes that it could not read. */
function failureOf(error: unknown, written: boolean): UpstreamError {
  const { code, message } = error as NodeJS.ErrnoException;
  const unsendable = code === "UND_ERR_INVALID_ARG";
  const reason = code ?? message;
  return new UpstreamError(
    written ? `no usable answer from the upstream: ${reason}` : `the request was not sent: ${reason}`,
    { certainty: written ? "ambiguous" : "not-sent", disposition: unsendable ? "park" : "retry" },
  );
}
