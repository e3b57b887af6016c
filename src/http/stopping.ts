import type { FastifyInstance } from "fastify";

import { TidegateError } from "../platform/errors.ts";
import { sendProblem } from "./problem.ts";

export interface StoppingOptions {
  stopping: AbortSignal;
  /** After `close` began, what is still in flight gets this long; then its connection is cut. */
  drainMs?: number;
}

/**
 * While the process stops, new requests get 503 `unavailable`, and every connection is closed with its answer, so that
 * the client comes back to another process. Requests in flight finish. Health checks still get their own answer.
 */
export function refuseWhileStopping(
  app: FastifyInstance,
  { stopping, drainMs = 8000 }: StoppingOptions,
): void {
  let closing = false;
  app.addHook("preClose", async () => {
    closing = true;
    setTimeout(() => app.server.closeAllConnections(), drainMs).unref();
  });
  app.addHook("onRequest", async (request, reply) => {
    if (!closing && !stopping.aborted) return;
    if (request.routeOptions.url?.startsWith("/health/") === true) return;
    await sendProblem(request, reply, new TidegateError("unavailable", "The gateway is stopping."));
  });
  app.addHook("onSend", (_request, reply, payload, done) => {
    if (closing || stopping.aborted) reply.header("connection", "close");
    done(null, payload);
  });
}
