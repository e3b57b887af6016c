import type { FastifyInstance } from "fastify";

import { TidegateError } from "../platform/errors.ts";
import { sendProblem } from "./problem.ts";

/**
 * While the process stops, new requests get 503 `unavailable` and their connection is closed, so that the client
 * comes back to another process. Health checks still get their own answer.
 */
export function refuseWhileStopping(app: FastifyInstance, stopping: AbortSignal): void {
  let closing = false;
  app.addHook("preClose", async () => {
    closing = true;
  });
  app.addHook("onRequest", async (request, reply) => {
    if (!closing && !stopping.aborted) return;
    reply.header("connection", "close");
    if (request.routeOptions.url?.startsWith("/health/") === true) return;
    await sendProblem(request, reply, new TidegateError("unavailable", "The gateway is stopping."));
  });
}
