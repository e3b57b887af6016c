import type { FastifyInstance, FastifyRequest, onRequestAsyncHookHandler } from "fastify";

import type { TenantConfig } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { bearerToken, challenge, unverifiedClaims } from "./bearer.ts";
import { type Claims, type Identity, type IdentityRules, ownClaim, toIdentity } from "./identity.ts";
import type { JwksOptions } from "./jwks.ts";
import { registerVerifier, type TokenVerifier } from "./token-verifier.ts";
import { rememberVerifiedTokens } from "./verified-tokens.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Who calls; set by `requireClient`, so only on its routes. */
    identity: Identity;
  }
}

export interface ClientAuthOptions {
  tenants: Record<string, Pick<TenantConfig, "auth">>;
  jwks?: JwksOptions;
}

interface Tenant {
  rules: IdentityRules;
  match: [claim: string, value: string][];
  verify: TokenVerifier;
}

/**
 * Builds the allow-list of issuers and returns the hook that lets only tenants' users pass, as `onRequest` of a route.
 *
 * The token's `iss` and the `match` claims pick the tenant; that tenant's rules then judge the token, and `match` is
 * checked again on what was verified. A token that fits none or several tenants is refused.
 */
export async function registerClientAuth(
  app: FastifyInstance,
  { tenants, jwks }: ClientAuthOptions,
): Promise<onRequestAsyncHookHandler> {
  const byIssuer = new Map<unknown, Tenant[]>();
  for (const [index, [tenantId, { auth }]] of Object.entries(tenants).entries()) {
    const onError = (err: unknown) =>
      app.log.warn({ err, tenantId }, "the issuer's keys could not be fetched");
    const options = { tokenOf: bearerToken, jwks: { onError, ...jwks } };
    const verify = await registerVerifier(app, `client${index}`, auth, options);
    const rules = { tenantId, scopes: auth.scopes, roles: auth.roles };
    const tenant = { rules, match: Object.entries(auth.match ?? {}), verify };
    byIssuer.set(auth.issuer, [...(byIssuer.get(auth.issuer) ?? []), tenant]);
  }
  app.decorateRequest("identity", null as never);
  const known = rememberVerifiedTokens<Identity>();
  const identify = async (request: FastifyRequest, token: string): Promise<Identity> => {
    const { rules, match, verify } = tenantOf(token, byIssuer);
    const claims = await verify(request);
    if (!matches(claims, match)) throw unknownIssuer();
    const identity = toIdentity(claims, rules);
    known.set(token, identity, identity.expiresAtMs);
    return identity;
  };
  return async function requireClient(request, reply) {
    const token = bearerToken(request);
    try {
      if (token === undefined) throw new TidegateError("unauthorized", "A bearer token is needed.");
      request.identity = known.get(token) ?? (await identify(request, token));
    } catch (error) {
      challenge(reply, token);
      throw error;
    }
  };
}

function tenantOf(token: string, byIssuer: ReadonlyMap<unknown, Tenant[]>): Tenant {
  const claims = unverifiedClaims(token);
  const candidates = claims === undefined ? [] : (byIssuer.get(ownClaim(claims, "iss")) ?? []);
  const [tenant, another] = candidates.filter(({ match }) => claims !== undefined && matches(claims, match));
  if (tenant === undefined || another !== undefined) throw unknownIssuer();
  return tenant;
}

function matches(claims: Claims, match: Tenant["match"]): boolean {
  return match.every(([claim, value]) => ownClaim(claims, claim) === value);
}

function unknownIssuer(): TidegateError {
  return new TidegateError("unauthorized", "The token was not accepted.");
}
