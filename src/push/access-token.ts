import { sign } from "node:crypto";

import type { FcmConfig } from "../platform/config/push-schema.ts";
import type { HttpAnswer } from "../upstream/http-client.ts";
import { openCaller, type CallOptions } from "./call.ts";

/** The service account's access token, fetched when it is needed and used until shortly before it expires. */
export interface AccessTokens {
  /**
   * The token in use; many who ask at once share one request for it.
   * @throws {TokenRefused} when the server gives none; `UpstreamError` when it does not answer.
   */
  get: () => Promise<string>;
  /** The service did not accept this token: the next who asks gets another one. */
  reject: (token: string) => void;
  close: () => Promise<void>;
}

/** No token was given; the message is the server's error code. */
export class TokenRefused extends Error {
  readonly answer: HttpAnswer;
  constructor(answer: HttpAnswer, message: string) {
    super(message);
    this.answer = answer;
  }
}

const scope = "https://www.googleapis.com/auth/firebase.messaging";
const assertionSeconds = 3_600;
/** A token that is about to expire might not be valid any more when the call arrives. */
const spareMs = 300_000;

export function createAccessTokens(
  { clientEmail, privateKey, tokenUri }: Pick<FcmConfig, "clientEmail" | "privateKey" | "tokenUri">,
  options: CallOptions,
): AccessTokens {
  const caller = openCaller(tokenUri, { ...options, connections: 1 });
  let current: { token: string; until: number } | undefined;
  let fetching: Promise<string> | undefined;

  async function fetchToken(): Promise<string> {
    const assertion = signAssertion({ clientEmail, privateKey, tokenUri }, Math.floor(Date.now() / 1_000));
    const form = new URLSearchParams({
      grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer",
      assertion,
    });
    const contentType = ["content-type", "application/x-www-form-urlencoded"];
    const answer = await caller.post(contentType, form.toString());
    const { access_token: token, expires_in: seconds, error } = readJson(answer.body);
    if (answer.status !== 200 || typeof token !== "string" || typeof seconds !== "number") {
      throw new TokenRefused(answer, `no access token: ${answer.status} ${codeOf(error)}`.trimEnd());
    }
    const lifeMs = seconds * 1_000;
    current = { token, until: performance.now() + lifeMs - Math.min(spareMs, lifeMs / 2) };
    return token;
  }

  return {
    get: async () => {
      if (current && performance.now() < current.until) return current.token;
      fetching ??= fetchToken().finally(() => {
        fetching = undefined;
      });
      return await fetching;
    },
    reject(token) {
      if (current?.token === token) current = undefined;
    },
    close: async () => await caller.close(),
  };
}

/** RFC 7523: the service account says who it is, by its key. */
function signAssertion(
  { clientEmail, privateKey, tokenUri }: Pick<FcmConfig, "clientEmail" | "privateKey" | "tokenUri">,
  iat: number,
): string {
  const claims = { iss: clientEmail, scope, aud: tokenUri, iat, exp: iat + assertionSeconds };
  const input = `${part({ alg: "RS256", typ: "JWT" })}.${part(claims)}`;
  return `${input}.${sign("sha256", Buffer.from(input), privateKey).toString("base64url")}`;
}

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** The members of a JSON object; none of anything else. */
export function readJson(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString());
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** An error's code, of those that only name what is wrong. */
export function codeOf(value: unknown): string {
  return typeof value === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(value) ? value : "";
}
