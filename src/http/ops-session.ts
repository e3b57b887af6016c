import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

import { TidegateError } from "../platform/errors.ts";
import type { Operator } from "./ops-auth.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The token that the login form sent, while it is checked. */
    submittedToken: string | undefined;
  }
}

const cookieName = "tidegate_ops";
const loginPath = "/ops/login";
const afterLoginPath = "/ops/queues/";
/** Browsers drop larger cookies without a word. */
const cookieTokenMax = 3800;

/** The token that the browser keeps since the login. */
export function cookieToken({ headers }: FastifyRequest): string | undefined {
  const pairs = headers.cookie?.split("; ") ?? [];
  return pairs.find((pair) => pair.startsWith(`${cookieName}=`))?.slice(cookieName.length + 1);
}

export function toLogin(reply: FastifyReply): FastifyReply {
  return reply.header("cache-control", "no-store").redirect(loginPath, 303);
}

/**
 * `GET /ops/login`: a form that takes a token. `POST /ops/session`: checks it and keeps it in a cookie until it
 * expires, for `/ops` only, out of reach of scripts and of other sites. `POST /ops/session/end` forgets it.
 */
export function registerOpsSession(
  app: FastifyInstance,
  identify: (request: FastifyRequest) => Promise<Operator>,
): void {
  app.register(async (session) => {
    session.addContentTypeParser<string>(
      "application/x-www-form-urlencoded",
      { parseAs: "string", bodyLimit: 16_384 },
      async (_request: FastifyRequest, body: string) => new URLSearchParams(body),
    );
    const hidden = { schema: { hide: true } };
    session.get(loginPath, hidden, async (_request, reply) => sendForm(reply, ""));
    session.post("/ops/session", hidden, async (request, reply) => {
      const token = request.body instanceof URLSearchParams ? request.body.get("token")?.trim() : undefined;
      if (!token || !/^[\w.-]+$/.test(token)) return sendForm(reply.code(400), "That is not a token.");
      if (token.length > cookieTokenMax)
        return sendForm(reply.code(400), "The token is too long for a cookie.");
      request.submittedToken = token;
      try {
        const { expiresAtMs } = await identify(request);
        return reply.header("set-cookie", cookie(request, token, expiresAtMs)).redirect(afterLoginPath, 303);
      } catch (error) {
        if (!(error instanceof TidegateError) || error.code === "unavailable") throw error;
        return sendForm(reply.code(401), error.message);
      }
    });
    session.post("/ops/session/end", hidden, async (request, reply) =>
      toLogin(reply.header("set-cookie", cookie(request, "", 0))),
    );
  });
}

function cookie(request: FastifyRequest, token: string, expiresAtMs: number): string {
  const maxAgeSeconds = Math.max(0, Math.floor((expiresAtMs - Date.now()) / 1000));
  const secure = isLoopback(request.hostname) ? "" : "; Secure";
  return `${cookieName}=${token}; Path=/ops; Max-Age=${maxAgeSeconds}; HttpOnly; SameSite=Strict${secure}`;
}

/** By the name that the browser used: behind a proxy on the same machine the peer's address says nothing. */
function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

const formPolicy =
  "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

function sendForm(reply: FastifyReply, message: string): FastifyReply {
  return reply
    .header("content-security-policy", formPolicy)
    .header("cache-control", "no-store")
    .header("referrer-policy", "no-referrer")
    .type("text/html; charset=utf-8")
    .send(form(message));
}

/** `message` is one of our own sentences, never what was sent. */
function form(message: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tidegate operators</title>
<style>body{font:1rem system-ui;max-width:28rem;margin:4rem auto;padding:0 1rem}input{width:100%;margin:.5rem 0}</style>
<h1>Tidegate operators</h1>
<form method="post" action="/ops/session">
<label>Token <input type="password" name="token" autocomplete="off" required autofocus></label>
<button>Log in</button>
<p role="alert">${message}</p>
</form>
</html>
`;
}
