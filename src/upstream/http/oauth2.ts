import type { UpstreamAuth } from "../../platform/config/upstream-schema.ts";
import { UpstreamError } from "../connector.ts";
import { openHttpClient, type HttpAnswer, type HttpClientOptions } from "../http-client.ts";
import { retryAfterMs } from "../retry-after.ts";

export type OAuth2 = Extract<UpstreamAuth, { type: "oauth2ClientCredentials" }>;

/** Access tokens of one upstream (OAuth 2.0, client credentials), fetched when needed and shared by its calls. */
export interface TokenSource {
  /**
   * A token that is believed to be good. However many callers wait, one request is under way.
   * @param refused a token that the upstream no longer takes: another one is given, or fetched
   * @throws {UpstreamError} `not-sent` and systemic when there is none: the upstream was not called.
   */
  token(options?: { refused?: string | undefined; signal?: AbortSignal | undefined }): Promise<string>;
  close(): Promise<void>;
}

interface Held {
  token: string;
  /** On `performance.now()`'s clock. */
  renewAt: number;
  expiresAt: number;
}

/** A token is renewed this long before its end, or when a fifth of its life is left if that is shorter. */
const renewAheadMs = 60_000;
/** While a token is still good, a failed renewal is tried again after this. */
const renewAgainMs = 5_000;

export function openTokenSource(auth: OAuth2, options: Omit<HttpClientOptions, "connections">): TokenSource {
  const url = new URL(auth.tokenUrl);
  const client = openHttpClient(url.origin, { ...options, connections: 1 });
  const request = tokenRequest(auth, url);
  let held: Held | undefined;
  let underWay: Promise<string> | undefined;

  async function fetchToken(): Promise<string> {
    try {
      // A token's life is counted from before it was asked for.
      const askedAt = performance.now();
      const answer = await client.send(request);
      held = heldOf(answer, askedAt);
      return held.token;
    } catch (error) {
      const stillGood = held !== undefined && performance.now() < held.expiresAt;
      if (!held || !stillGood) throw withoutToken(error);
      held = { ...held, renewAt: performance.now() + renewAgainMs };
      return held.token;
    } finally {
      underWay = undefined;
    }
  }

  return {
    async token({ refused, signal } = {}) {
      if (held !== undefined && held.token === refused) held = undefined;
      if (held !== undefined && performance.now() < held.renewAt) return held.token;
      underWay ??= fetchToken();
      return await unlessStopped(underWay, signal);
    },
    close: () => client.close(),
  };
}

function tokenRequest(
  auth: OAuth2,
  url: URL,
): { method: string; path: string; headers: string[]; body: string } {
  const { clientId, clientSecret, scope, clientAuth, parameters } = auth;
  const form = new URLSearchParams({ grant_type: "client_credentials", ...parameters });
  if (scope !== undefined) form.set("scope", scope);
  const headers = ["content-type", "application/x-www-form-urlencoded", "accept", "application/json"];
  if (clientAuth === "body") {
    form.set("client_id", clientId);
    form.set("client_secret", clientSecret);
  } else {
    const pair = `${formEncoded(clientId)}:${formEncoded(clientSecret)}`;
    headers.push("authorization", `Basic ${Buffer.from(pair).toString("base64")}`);
  }
  return { method: "POST", path: url.pathname + url.search, headers, body: form.toString() };
}

/** RFC 6749, 2.3.1: ID and secret are form-encoded before they are put together. */
function formEncoded(value: string): string {
  return new URLSearchParams({ v: value }).toString().slice(2);
}

function heldOf(answer: HttpAnswer, askedAt: number): Held {
  const { status, headers, body } = answer;
  const said = objectOf(body);
  if (status > 299) {
    const { error } = said;
    const code = typeof error === "string" && /^[a-z_]{1,40}$/.test(error) ? ` (${error})` : "";
    const wait = retryAfterMs(headers, Date.now());
    throw noToken(`the token endpoint answered ${status}${code}`, wait);
  }
  const { access_token: token, token_type: type, expires_in: seconds } = said;
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
    throw noToken("the token endpoint answered without a token that a header can hold");
  }
  if (typeof type === "string" && type.toLowerCase() !== "bearer") {
    throw noToken("the token endpoint gives tokens of another type than bearer");
  }
  const livesMs = Number(seconds ?? Infinity) * 1000;
  const isKnown = Number.isFinite(livesMs) && livesMs > 0;
  const expiresAt = isKnown ? askedAt + livesMs : Infinity;
  return { token, expiresAt, renewAt: isKnown ? expiresAt - Math.min(renewAheadMs, livesMs / 5) : Infinity };
}

function objectOf(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString());
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Whatever befell the request for a token, the call that needs it was not sent. */
function withoutToken(error: unknown): UpstreamError {
  if (!(error instanceof UpstreamError)) return noToken("no token: an internal error");
  if (error.systemic && error.certainty === "not-sent") return error;
  return noToken(`no token: ${error.message}`, error.retryAfterMs);
}

function noToken(message: string, wait?: number): UpstreamError {
  return new UpstreamError(message, {
    certainty: "not-sent",
    disposition: "retry",
    systemic: true,
    retryAfterMs: wait,
  });
}

/** A caller that gives up leaves the request to the others. */
function unlessStopped<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const stop = (): void => {
    reject(
      new UpstreamError("stopped while waiting for a token", { certainty: "not-sent", disposition: "retry" }),
    );
  };
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop);
  void work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  return promise;
}
