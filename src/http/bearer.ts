import type { FastifyReply, FastifyRequest } from "fastify";

const bearer = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i;

/** The token of the `Authorization` header; undefined without one or with another scheme. */
export function bearerToken({ headers }: FastifyRequest): string | undefined {
  return headers.authorization === undefined ? undefined : bearer.exec(headers.authorization)?.[1];
}

/** RFC 6750: without a token only the scheme is named; a bad one is called so. */
export function challenge(reply: FastifyReply, token: string | undefined): void {
  reply.header("www-authenticate", token === undefined ? "Bearer" : 'Bearer error="invalid_token"');
}

/** The token's claims, unverified: only good for finding out who has to verify it. */
export function unverifiedClaims(token: string): Record<string, unknown> | undefined {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"));
    return typeof payload === "object" && payload !== null ? (payload as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
