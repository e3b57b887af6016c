import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

import { TidegateError } from "../platform/errors.ts";
import { sendProblem } from "./problem.ts";
import { isTransient } from "./transient-failures.ts";

export interface ProblemOptions {
  /** What every 413 tells, in the names of `GET /v1/capabilities`. */
  limits: Record<string, number>;
}

/** Makes every failure of a request a problem document; see `toTidegateError`. */
export function registerProblems(app: FastifyInstance, { limits }: ProblemOptions): void {
  app.setErrorHandler((error, request, reply) => {
    const known = toTidegateError(error, limits);
    logFailure(request, known, error);
    if (known.code === "request-too-large") drainBody(request, reply);
    if (known.code === "unsupported-media-type") reply.header("accept", "application/json");
    return sendProblem(request, reply, known);
  });
  app.setNotFoundHandler((request, reply) =>
    sendProblem(request, reply, new TidegateError("not-found", "There is no such route.")),
  );
}

/** What an error means to the client. What nobody foresaw becomes `internal`, and its message stays inside. */
export function toTidegateError(error: unknown, limits: Record<string, number>): TidegateError {
  if (error instanceof TidegateError) {
    return error.code === "request-too-large" ? withLimits(error, limits) : error;
  }
  const { code, statusCode, validation } = error as Partial<FastifyError>;
  if (validation !== undefined) return validationProblem(error as FastifyError);
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return withLimits(new TidegateError("request-too-large", "The body is larger than the limit."), limits);
  }
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE" || statusCode === 415) {
    return new TidegateError("unsupported-media-type", "The body has to be application/json.");
  }
  if (isTransient(error)) {
    return new TidegateError("unavailable", "The gateway's database can't be reached.", { cause: error });
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return clientProblem(statusCode, code);
  return new TidegateError("internal", "Unexpected failure.", { cause: error });
}

function withLimits(error: TidegateError, limits: Record<string, number>): TidegateError {
  return new TidegateError(error.code, error.message, {
    cause: error,
    extensions: { limits, ...error.extensions },
  });
}

function validationProblem({ validation = [], validationContext = "body" }: FastifyError): TidegateError {
  const errors = validation.slice(0, 8).map(({ instancePath, message = "is invalid", params }) => {
    const unknownField = params["additionalProperty"];
    const detail = typeof unknownField === "string" ? `unknown field ${shown(unknownField)}` : message;
    return { in: validationContext, pointer: instancePath.slice(0, 200), detail };
  });
  const sentences = errors.map(({ pointer, detail }) => `${validationContext}${pointer}: ${detail}`);
  return new TidegateError("invalid-request", sentences.join("; "), { extensions: { errors } });
}

function shown(fieldName: string): string {
  return JSON.stringify(fieldName.slice(0, 64));
}

function clientProblem(statusCode: number, code: string | undefined): TidegateError {
  if (statusCode === 404) return new TidegateError("not-found", "There is no such thing here.");
  if (code === "FST_ERR_CTP_INVALID_CONTENT_LENGTH") {
    return new TidegateError(
      "invalid-request",
      "The body's length is not the one that Content-Length names.",
    );
  }
  return new TidegateError("invalid-request", "The request could not be read.");
}

function logFailure(request: FastifyRequest, known: TidegateError, error: unknown): void {
  if (known.code === "internal") request.log.error({ err: error }, "request failed");
  else if (known.code === "unavailable") request.log.warn({ err: error }, "request refused for now");
}

const drainedBytesMax = 64 * 1024 * 1024;

/**
 * Reads on what the client still sends, so that it gets to reading the answer: closing with unread bytes resets the
 * connection, and the phone would see a network failure instead of the limits. Bounded; then the connection goes.
 */
function drainBody({ raw }: FastifyRequest, reply: FastifyReply): void {
  if (raw.complete || Number(raw.headers["content-length"] ?? 0) > drainedBytesMax) return;
  reply.removeHeader("connection");
  let drainedBytes = 0;
  raw.on("data", (chunk: Buffer) => {
    drainedBytes += chunk.length;
    if (drainedBytes > drainedBytesMax) raw.destroy();
  });
}
