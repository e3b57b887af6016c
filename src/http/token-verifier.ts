import fastifyJwt, { type FastifyJWTOptions, type TokenOrHeader } from "@fastify/jwt";
import type { FastifyInstance, FastifyRequest } from "fastify";

import type { OpsAuth, TenantAuth } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { type Claims, clockSkewMs } from "./identity.ts";
import { createJwks, type JwksOptions } from "./jwks.ts";

export interface VerifierOptions {
  /** Where in the request the token is; called again for each verification. */
  tokenOf: (request: FastifyRequest) => string | undefined;
  jwks?: JwksOptions | undefined;
}

/**
 * Verifies the request's token: signature, `exp`, `nbf`, `iss`, `aud`, `sub`.
 * @throws {TidegateError} `unauthorized`, or `unavailable` when the issuer's keys can't be had.
 */
export type TokenVerifier = (request: FastifyRequest) => Promise<Claims>;

/**
 * Registers @fastify/jwt for one issuer's rules, of which the algorithm decides and never the token's `alg`. Each `namespace` of an app is
 * used once.
 */
export async function registerVerifier(
  app: FastifyInstance,
  namespace: string,
  rules: OpsAuth | TenantAuth,
  { tokenOf, jwks }: VerifierOptions,
): Promise<TokenVerifier> {
  await app.register(fastifyJwt, {
    namespace,
    secret: keySource(rules, jwks),
    decode: { complete: true },
    verify: {
      extractToken: (request) => tokenOf(request),
      algorithms: [rules.algorithm],
      allowedIss: rules.issuer,
      allowedAud: rules.audience,
      clockTolerance: clockSkewMs,
      requiredClaims: ["iss", "aud", "exp", "sub"],
    },
  });
  const method = `${namespace}JwtVerify`;
  return async (request) => {
    try {
      return await (request as unknown as Record<string, () => Promise<Claims>>)[method]!();
    } catch (error) {
      throw toRefusal(error);
    }
  };
}

function keySource(
  rules: OpsAuth | TenantAuth,
  options: JwksOptions | undefined,
): FastifyJWTOptions["secret"] {
  const { algorithm, secret, jwksUri, issuer } = rules;
  if (algorithm === "HS256") {
    if (!secret) throw new Error(`HS256 for ${issuer} needs a secret`);
    return secret;
  }
  if (!jwksUri) throw new Error(`${algorithm} for ${issuer} needs a jwksUri`);
  const jwks = createJwks(jwksUri, algorithm, options);
  return async (_request: FastifyRequest, token: TokenOrHeader) => {
    const { alg, kid } = "header" in token ? token.header : token;
    // Judged before the keys are asked for: a token of another algorithm must not cause a fetch.
    if (alg !== algorithm) throw refusal;
    const key = await jwks.keyFor(typeof kid === "string" ? kid : undefined);
    if (key === undefined) throw refusal;
    return key;
  };
}

const refusal = new TidegateError("unauthorized", "The token was not accepted.");

/** The reasons that help an app; which check a forged token failed is nobody's business. */
const reasons: Record<string, string> = {
  FST_JWT_AUTHORIZATION_TOKEN_EXPIRED: "The token has expired.",
  FAST_JWT_EXPIRED: "The token has expired.",
  FAST_JWT_INACTIVE: "The token is not valid yet.",
};

function toRefusal(error: unknown): TidegateError {
  if (error instanceof TidegateError) return error;
  const { code } = error as { code?: string };
  return new TidegateError("unauthorized", reasons[code ?? ""] ?? refusal.message, { cause: error });
}
