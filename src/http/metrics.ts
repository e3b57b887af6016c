import type { FastifyInstance } from "fastify";
import { Histogram, type Registry } from "prom-client";

import { errorAnswers } from "./problem.ts";

/**
 * `GET /metrics` in Prometheus' text format, and the duration of each request by method, route template and status.
 *
 * The route is open: it shows no payload, no user and no URL, but how busy the gateway is. Where the port is public,
 * keep `/metrics` off it in the proxy. Register before the routes.
 */
export function registerMetrics(app: FastifyInstance, registry: Registry): void {
  const duration = new Histogram({
    name: "tidegate_http_request_duration_seconds",
    help: "Time from a request's first line to the end of its answer.",
    labelNames: ["method", "route", "status"],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [registry],
  });
  app.addHook("onResponse", (request, reply, done) => {
    const route = request.routeOptions.url ?? "unmatched";
    const method = request.routeOptions.url === undefined ? "any" : request.method;
    duration.observe({ method, route, status: reply.statusCode }, reply.elapsedTime / 1000);
    done();
  });
  app.get(
    "/metrics",
    {
      schema: {
        operationId: "readMetrics",
        tags: ["operations"],
        summary: "The gateway's metrics in Prometheus' text format",
        security: [],
        response: {
          200: { description: "Metrics.", content: { "text/plain": { schema: { type: "string" } } } },
          ...errorAnswers("invalid-request"),
        },
      },
    },
    async (_request, reply) => {
      const text = await registry.metrics();
      return reply.type(registry.contentType).send(text);
    },
  );
}
