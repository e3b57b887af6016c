import type { FastifyInstance } from "fastify";

/**
 * Answers with `X-Request-Id`, and writes one line for each request when it is over: ID, method, the route's template,
 * status, milliseconds, tenant. Never the URL, a header or a body.
 */
export function registerRequestLog(app: FastifyInstance): void {
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
  });
  app.addHook("onResponse", async (request, reply) => {
    const line = {
      method: request.method,
      route: request.routeOptions.url ?? "unmatched",
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      ...(request.identity && { tenantId: request.identity.tenantId }),
    };
    if (reply.statusCode >= 500) request.log.warn(line, "request");
    else request.log.info(line, "request");
  });
}
