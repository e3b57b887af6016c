import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestAsyncHookHandler } from "fastify";

import type { OpsAuth } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { bearerToken, challenge } from "./bearer.ts";
import { type Claims, expiryOf, isName, ownClaim } from "./identity.ts";
import type { JwksOptions } from "./jwks.ts";
import { cookieToken, registerOpsSession, toLogin } from "./ops-session.ts";
import { sendProblem } from "./problem.ts";
import { registerVerifier } from "./token-verifier.ts";
import { rememberVerifiedTokens } from "./verified-tokens.ts";

/** What an operator may do; each role may also do what those before it may. */
export const opsRoles = ["viewer", "operator", "approver"] as const;
export type OpsRole = (typeof opsRoles)[number];

export interface Operator {
  /** The token's `sub`: who did it, for the record. */
  name: string;
  role: OpsRole;
  expiresAtMs: number;
}

declare module "fastify" {
  interface FastifyRequest {
    /** Who operates; set by `requireOps`, so only on its routes. */
    operator: Operator;
  }
}

export type RequireOps = (minRole: OpsRole) => onRequestAsyncHookHandler;

export interface OpsAuthOptions {
  auth: OpsAuth;
  jwks?: JwksOptions;
}

/**
 * Registers the operators' login (`/ops/login`, `/ops/session`) and returns the hook that lets only operators pass.
 * Without `ops` in the configuration it is not called, and there is no `/ops`.
 *
 * Programs send a bearer token; a browser keeps it in a cookie. What a cookie allows is done only for pages of this
 * very host, so another site can't use it. A browser that is not logged in is sent to the login page.
 */
export async function registerOpsAuth(
  app: FastifyInstance,
  { auth, jwks }: OpsAuthOptions,
): Promise<RequireOps> {
  const verify = await registerVerifier(app, "ops", auth, {
    tokenOf,
    jwks: { onError: (err) => app.log.warn({ err }, "the operators' keys could not be fetched"), ...jwks },
  });
  const known = rememberVerifiedTokens<Operator>({ entriesMax: 1000 });
  app.decorateRequest("operator", null as never);
  app.decorateRequest("submittedToken", undefined);

  const identify = async (request: FastifyRequest): Promise<Operator> => {
    const token = tokenOf(request);
    if (token === undefined) throw new TidegateError("unauthorized", "An operator's token is needed.");
    const remembered = known.get(token);
    if (remembered !== undefined) return remembered;
    const operator = toOperator(await verify(request));
    known.set(token, operator, operator.expiresAtMs);
    return operator;
  };
  registerOpsSession(app, identify);

  return (minRole) => async (request, reply) => {
    try {
      request.operator = await identify(request);
      if (bearerToken(request) === undefined) refuseForeignPages(request);
      if (opsRoles.indexOf(request.operator.role) < opsRoles.indexOf(minRole)) {
        throw new TidegateError("forbidden", `This needs the role ${minRole}.`);
      }
    } catch (error) {
      await refuse(request, reply, error);
    }
  };
}

function tokenOf(request: FastifyRequest): string | undefined {
  return request.submittedToken ?? bearerToken(request) ?? cookieToken(request);
}

function toOperator(claims: Claims): Operator {
  const name = ownClaim(claims, "sub");
  const role = opsRoles.find((known) => known === ownClaim(claims, "role"));
  if (typeof name !== "string" || !isName(name)) {
    throw new TidegateError("unauthorized", "The token's `sub` is not a usable name.");
  }
  if (role === undefined)
    throw new TidegateError("forbidden", "The token's `role` is none of the operators'.");
  return Object.freeze({ name, role, expiresAtMs: expiryOf(claims) });
}

/** Browsers name the page's origin with everything but a read; `SameSite` alone lets sibling hosts through. */
function refuseForeignPages({ method, headers }: FastifyRequest): void {
  if (method === "GET" || method === "HEAD") return;
  if (!isOwnOrigin(headers.origin, headers.host)) {
    throw new TidegateError("forbidden", "The request comes from a page of another origin.");
  }
}

function isOwnOrigin(origin: string | undefined, host: string | undefined): boolean {
  return origin !== undefined && URL.canParse(origin) && new URL(origin).host === host;
}

/** Answers by itself instead of throwing: the queue board brings an error handler of its own. */
function refuse(request: FastifyRequest, reply: FastifyReply, error: unknown): FastifyReply {
  if (!(error instanceof TidegateError)) throw error;
  const { method, headers } = request;
  if (error.code === "unauthorized" && method === "GET" && headers.accept?.includes("text/html") === true) {
    return toLogin(reply);
  }
  challenge(reply, tokenOf(request));
  return sendProblem(request, reply, error);
}
