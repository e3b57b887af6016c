import type { FastifyInstance } from "fastify";

/**
 * Answers with `X-Request-Id`, and writes one line for each request when it is over: ID, method, the route's template,
 * status, milliseconds, tenant. Never the URL, a header or a body.
 */
export function registerRequestLog(app: FastifyInstance): void {
  // These lines have fixed members and nothing to hide: looking through them would cost more than writing them.
  const log = app.log.child({}, { redact: [] });
  app.addHook("onRequest", (request, reply, done) => {
    reply.header("x-request-id", request.id);
    done();
  });
  app.addHook("onResponse", (request, reply, done) => {
    const line = {
      requestId: request.id,
      method: request.method,
      route: request.routeOptions.url ?? "unmatched",
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      ...(request.identity && { tenantId: request.identity.tenantId }),
    };
    if (reply.statusCode >= 500) log.warn(line, "request");
    else log.info(line, "request");
    done();
  });
}
