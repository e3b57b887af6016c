import type { ServerResponse } from "node:http";

import Fastify from "fastify";
import { Client } from "pg";

import { answerParent } from "../child.ts";

/**
 * The floor of event streams: a bare Fastify that gives what one LISTEN hears to every connection. No scopes, no cursors,
 * nothing is read, and what is missed is lost.
 */
answerParent(async ({ databaseUrl }: { databaseUrl: string }): Promise<string> => {
  const open = new Set<ServerResponse>();
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  client.on("notification", ({ payload = "" }) => {
    for (const raw of open) raw.write(`data: ${payload}\n\n`);
  });
  await client.query("listen floor");
  const app = Fastify();
  app.get("/v1/changes/stream", (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200, { "content-type": "text/event-stream" });
    reply.raw.write(":\n\n");
    open.add(reply.raw);
    reply.raw.once("close", () => open.delete(reply.raw));
  });
  return await app.listen({ host: "127.0.0.1", port: 0 });
});
