import { createHmac, sign, type KeyObject } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import type { FastifyInstance } from "fastify";
import { onTestFinished } from "vitest";

import { createHttpServer, type HttpServer } from "../../src/http/server.ts";
import { createLogger } from "../../src/platform/logger.ts";

/** An HTTP server as the gateway makes it, without its routes, on a real port, with its log in hand. */
export interface TestServer {
  app: HttpServer;
  log: string[];
  stop: AbortController;
  /** Starts listening and returns the base URL. */
  listen: () => Promise<string>;
}

export async function testServer({ bodyBytes = 4 * 1024 * 1024, drainMs = 5000 } = {}): Promise<TestServer> {
  const log: string[] = [];
  const logger = createLogger("info", { write: (line: string) => void log.push(line) });
  const stop = new AbortController();
  const limits = { mutations: 500, bodyBytes, mutationBytes: 262_144 };
  const app = await createHttpServer({ logger, limits, stopping: stop.signal, drainMs });
  onTestFinished(async () => await app.close());
  return { app, log, stop, listen: async () => await listening(app) };
}

async function listening(app: Pick<FastifyInstance, "listen">): Promise<string> {
  return await app.listen({ host: "127.0.0.1", port: 0 });
}

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token signed as asked, whatever that makes of it. */
export function token(
  claims: Record<string, unknown>,
  by: { secret: string | Buffer } | { privateKey: KeyObject; alg: "RS256" | "ES256" | "EdDSA" },
  header: Record<string, unknown> = {},
): string {
  const alg = "secret" in by ? "HS256" : by.alg;
  const input = `${part({ alg, typ: "JWT", ...header })}.${part(claims)}`;
  if ("secret" in by) return `${input}.${createHmac("sha256", by.secret).update(input).digest("base64url")}`;
  const digest = alg === "EdDSA" ? null : "sha256";
  const key = { key: by.privateKey, dsaEncoding: "ieee-p1363" as const };
  return `${input}.${sign(digest, Buffer.from(input), key).toString("base64url")}`;
}

export const unsigned = (claims: Record<string, unknown>) => `${part({ alg: "none" })}.${part(claims)}.`;

export const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;

/** An issuer's key endpoint, whose answer and fate the test decides. */
export async function keyEndpoint() {
  const endpoint = {
    uri: "",
    fetches: 0,
    keys: [] as object[],
    status: 200,
    body: undefined as string | undefined,
  };
  const server = createServer((_request, response) => {
    endpoint.fetches += 1;
    response.writeHead(endpoint.status, { "content-type": "application/json" });
    response.end(endpoint.body ?? JSON.stringify({ keys: endpoint.keys }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  endpoint.uri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  return endpoint;
}
