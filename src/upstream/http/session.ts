import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { Call } from "../connector.ts";
import { openHttpClient, type HttpAnswer, type HttpClientOptions } from "../http-client.ts";
import { authHeader, headersOf } from "./headers.ts";
import { openTokenSource } from "./oauth2.ts";
import { openSigner } from "./sign.ts";

export interface SessionRequest {
  method: string;
  /** Path and query below the upstream's origin, percent-encoded. */
  path: string;
  /** The call's own headers, as names and values in turn; they count more than the configured ones. */
  headers?: readonly string[];
  body?: string | undefined;
}

/**
 * The HTTP side of one upstream, the same for every kind of connector: its headers, who we are, signatures, TLS, proxy.
 */
export interface Session {
  /**
   * Sends one request and resolves with the answer whatever its status; `call.onStatus` is told it.
   *
   * Where tokens are fetched, a 401 says that this one was refused and nothing was done: the request is sent once more
   * with another token. Each time, `call.mayStart` is asked directly before the first byte is written.
   * @throws {UpstreamError} as the HTTP client, and `not-sent` where there is no token or no signature.
   */
  send(call: Call, request: SessionRequest): Promise<HttpAnswer>;
  close(): Promise<void>;
}

export function openSession(config: UpstreamConfig): Session {
  const { baseUrl, auth, concurrency, timeoutMs, tls, proxy, statuses } = config;
  const { origin } = new URL(baseUrl);
  const options: Omit<HttpClientOptions, "connections"> = { timeoutMs, tls };
  const headers = headersOf(config);
  const shown = authHeader(auth);
  const sign = openSigner(config.sign, timeoutMs);
  const client = openHttpClient(origin, { ...options, proxy, connections: concurrency });
  const tokens =
    auth?.type === "oauth2ClientCredentials"
      ? openTokenSource(auth, { ...options, proxy: auth.proxy })
      : undefined;

  async function sendOnce(
    call: Call,
    request: SessionRequest,
    token: string | undefined,
  ): Promise<HttpAnswer> {
    const { method, path, body } = request;
    const bearer = token === undefined ? [] : ["authorization", `Bearer ${token}`];
    const own = [...(request.headers ?? []), ...shown, ...bearer];
    const unsigned = headers.of(call, body !== undefined, own);
    const signed = await sign({ method, url: origin + path, body }, unsigned, call);
    const { mayStart, signal } = call;
    return await client.send({ method, path, headers: signed, body, mayStart, signal });
  }

  return {
    async send(call, request) {
      const token = await tokens?.token({ signal: call.signal });
      let answer = await sendOnce(call, request, token);
      // A 401 that the configuration reads in its own way says nothing of the token.
      if (answer.status === 401 && tokens && statuses[401] === undefined) {
        const another = await tokens.token({ refused: token, signal: call.signal });
        answer = await sendOnce(call, request, another);
      }
      call.onStatus?.(answer.status);
      return answer;
    },
    async close() {
      await Promise.all([client.close(), tokens?.close()]);
    },
  };
}
