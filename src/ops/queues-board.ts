import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { FastifyAdapter } from "@bull-board/fastify";
import type { Queue } from "bullmq";
import type { FastifyInstance, FastifyRequest } from "fastify";

import { opsRoles, type RequireOps } from "../http/ops-auth.ts";

export interface QueuesBoardOptions {
  queues: readonly Queue[];
  requireOps: RequireOps;
}

const path = "/ops/queues";

/**
 * Bull-board over the raw queues at `/ops/queues`. A viewer looks; retrying, promoting and deleting jobs takes an
 * operator. Queues only say "look at this lane", so nothing that is done here can lose a mutation.
 */
export async function registerQueuesBoard(
  app: FastifyInstance,
  { queues, requireOps }: QueuesBoardOptions,
): Promise<void> {
  const look = requireOps("viewer");
  const act = requireOps("operator");
  await app.register(async (scope) => {
    scope.addHook("onRequest", async function (request, reply) {
      reply.header("content-security-policy", boardPolicy);
      const reads = request.method === "GET" || request.method === "HEAD";
      return await (reads ? look : act).call(this, request, reply);
    });
    // The board's hooks see headers alone, so the role travels in one; whatever a client sent there is overwritten.
    scope.addHook("preHandler", async ({ headers, operator }: FastifyRequest) => {
      headers[roleHeader] = operator.role;
    });
    await scope.register(boardPlugin(queues), { prefix: path });
  });
}

const roleHeader = "x-tidegate-ops-role";

/** The board's page links a font of another host; with this policy no one's browser asks for it. */
const boardPolicy =
  "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'";

function boardPlugin(queues: readonly Queue[]) {
  const serverAdapter = new FastifyAdapter().setBasePath(path);
  createBullBoard({
    queues: queues.map((queue) => new BullMQAdapter(queue)),
    serverAdapter,
    options: {
      uiConfig: { boardTitle: "Tidegate queues" },
      handlerHooks: {
        after: async ({ request }, response) => asSeenBy(request?.headers[roleHeader], response),
      },
    },
  });
  return serverAdapter.registerPlugin();
}

interface BoardResponse {
  body?: unknown;
}

/** Shows a viewer the queues as read-only, so that the page offers no button that would be refused. */
function asSeenBy<Response extends BoardResponse>(role: unknown, response: Response): Response {
  if (role !== opsRoles[0]) return response;
  const { queues } = (response.body ?? {}) as { queues?: object[] };
  if (!Array.isArray(queues)) return response;
  const readOnly = { readOnlyMode: true, allowRetries: false, allowCompletedRetries: false };
  return {
    ...response,
    body: { ...(response.body as object), queues: queues.map((queue) => ({ ...queue, ...readOnly })) },
  };
}
