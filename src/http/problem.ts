import type { FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";

import { type ErrorCode, errorCodes, type TidegateError } from "../platform/errors.ts";

export const problemMediaType = "application/problem+json";

/** An RFC 9457 problem. Further members depend on the type, e.g. `lastSeq` or `limits`. */
export type Problem = Type.Static<typeof problemSchema>;
export const problemSchema = Type.Object(
  {
    type: Type.String({ description: "`urn:tidegate:problem:<code>`; stable, for programs to act on." }),
    title: Type.String({ description: "What the code means, for people." }),
    status: Type.Integer({ description: "The HTTP status." }),
    detail: Type.Optional(Type.String({ description: "What was wrong in this case." })),
    instance: Type.Optional(Type.String({ description: "The request's ID, as in `X-Request-Id`." })),
    errors: Type.Optional(
      Type.Array(
        Type.Object({
          in: Type.String({ description: "body, querystring, params or headers" }),
          pointer: Type.String({ description: "JSON Pointer to the field." }),
          detail: Type.String(),
        }),
        { description: "The fields that were wrong (`invalid-request`)." },
      ),
    ),
  },
  { $id: "Problem", title: "Problem", additionalProperties: true },
);

/** The same by its name, for schemas that hold problems: every server of the gateway knows it. */
export const problemReference = Type.Unsafe<Problem>({ $ref: "Problem#" });

/**
 * The response schemas of a route's error answers, by status.
 *
 * `unauthorized`, `unavailable` and whatever else the route can answer are all listed by the route: the list is what
 * clients of the API generate their code from.
 */
export function errorAnswers(...codes: ErrorCode[]): Record<number, ErrorAnswer> {
  const answers: Record<number, ErrorAnswer> = {};
  for (const code of codes) {
    const { status, title } = errorCodes[code];
    const description = `\`${code}\`: ${title}.`;
    const known = answers[status]?.description;
    answers[status] = {
      description: known === undefined ? description : `${known} ${description}`,
      content: { [problemMediaType]: { schema: problemReference } },
    };
  }
  return answers;
}

export interface ErrorAnswer {
  description: string;
  content: Record<string, { schema: typeof problemReference }>;
}

/** The problem document of an error. What broke inside the gateway (status 500) is not told to clients. */
export function toProblem({ code, message, extensions }: TidegateError, requestId?: string): Problem {
  const { status, title } = errorCodes[code];
  return {
    ...(status !== 500 && extensions),
    type: `urn:tidegate:problem:${code}`,
    title,
    status,
    ...(status !== 500 && { detail: message }),
    ...(requestId !== undefined && { instance: requestId }),
  };
}

/** Seconds after which a client that was told to come back should do so, unless the answer already says it. */
const retryAfterSeconds = 5;

/** Answers with the error's problem document and the headers that go with its status. Does not log. */
export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  error: TidegateError,
): FastifyReply {
  const problem = toProblem(error, request.id);
  if (problem.status !== 401) reply.removeHeader("www-authenticate");
  else if (!reply.hasHeader("www-authenticate")) reply.header("www-authenticate", "Bearer");
  if (problem.status === 503 && !reply.hasHeader("retry-after")) {
    reply.header("retry-after", retryAfterSeconds);
  }
  return reply.code(problem.status).type(problemMediaType).send(JSON.stringify(problem));
}
