import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";

import compress from "@fastify/compress";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  LogController,
  type RawReplyDefaultExpression,
  type RawRequestDefaultExpression,
  type RawServerDefault,
} from "fastify";
import type { Logger } from "pino";

import { answerSerializers } from "./answer-serializers.ts";
import { answerBrokenHttp, noteAnswers } from "./broken-http.ts";
import { registerProblems, toTidegateError } from "./error-handler.ts";
import { exactValidation } from "./exact-validation.ts";
import { registerJsonBody } from "./json-body.ts";
import { problemSchema, sendProblem } from "./problem.ts";
import { registerRequestLog } from "./request-log.ts";
import { refuseWhileStopping } from "./stopping.ts";

/** The server that every route plugin gets: schemas are TypeBox values and type the handlers. */
export type HttpServer = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

export interface HttpServerOptions {
  logger: Logger;
  /** Told in every 413. `bodyBytes` is the limit of a decoded body. */
  limits: { bodyBytes: number } & Record<string, number>;
  /** Aborted when the process begins to stop: from then on requests get 503, and those in flight finish. */
  stopping: AbortSignal;
  /** After `close` began, what is still in flight gets this long (default 8000); then its connection is cut. */
  drainMs?: number;
  /** Open connections; more are refused by the kernel's RST, since nothing sensible can be done for them. */
  connectionsMax?: number;
}

/** A phone on a bad network may take this long to send its 4 MiB. */
const requestTimeoutMs = 120_000;
const headersTimeoutMs = 20_000;
/** Longer than the idle timeout of common load balancers (60 s), which must be the ones to hang up. */
const keepAliveTimeoutMs = 72_000;
/** A connection on which nothing moves. Event streams send something every 15 s. */
const connectionTimeoutMs = 120_000;

/**
 * Makes the HTTP server, without routes: JSON bodies with their text, exact validation, problem documents for every
 * failure, request IDs, a log line for each request, compression.
 *
 * Proxies' headers are not trusted (`trustProxy` is off). Register what listens to `onRoute` (OpenAPI, metrics) before
 * the routes.
 */
export async function createHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const app = instantiate(options);
  app.server.maxConnections = options.connectionsMax ?? 10_000;
  noteAnswers(app.server);
  app.addSchema(problemSchema);
  registerProblems(app, options);
  registerRequestLog(app);
  refuseWhileStopping(app, options);
  registerJsonBody(app, { bodyBytesMax: options.limits.bodyBytes });
  await app.register(compress, { globalDecompression: false, encodings: ["br", "gzip"] });
  return app;
}

function instantiate({ logger, limits }: HttpServerOptions): HttpServer {
  // Typed as the interface that plugins know; pino's own type would make it another kind of server.
  const loggerInstance: FastifyBaseLogger = logger;
  return Fastify({
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "requestId" }),
    requestIdHeader: false,
    genReqId: requestId,
    bodyLimit: limits.bodyBytes,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionTimeout: connectionTimeoutMs,
    http: { headersTimeout: headersTimeoutMs },
    forceCloseConnections: "idle",
    return503OnClosing: false,
    trustProxy: false,
    routerOptions: { maxParamLength: 255 },
    schemaController: {
      compilersFactory: { buildValidator: exactValidation(), buildSerializer: answerSerializers() },
    },
    clientErrorHandler: answerBrokenHttp,
    frameworkErrors: (error, request, reply) => {
      reply.header("x-request-id", request.id);
      // Fastify types this request by a generic that no route has.
      return sendProblem(request, reply, toTidegateError(error, limits)) as never;
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
}

const saneRequestId = /^[A-Za-z0-9._-]{1,128}$/;

/** The caller's ID when it is harmless in logs and headers, else one of our own. */
function requestId({ headers }: IncomingMessage | { headers: Record<string, unknown> }): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && saneRequestId.test(given) ? given : randomUUID();
}
