import { type DestinationStream, type Logger, type LoggerOptions, pino, stdTimeFunctions } from "pino";

/**
 * What a log line never shows, wherever it stands: the serializers below keep it out, and the paths catch what was
 * logged by mistake. Payload is health data; a token or a cursor in a log is a key left in the door.
 */
const hiddenKeys = [
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
  "token",
  "secret",
  "password",
  "cursor",
  "data",
  "base",
  "body",
  "bodyText",
  "payload",
  "excerpt",
  "mutations",
  "headers",
  "query",
];

const hiddenPaths = hiddenKeys.flatMap((key) => {
  const step = key.includes("-") ? `["${key}"]` : key;
  const below = (parent: string) => (key.includes("-") ? `${parent}${step}` : `${parent}.${step}`);
  return [step, below("*"), below("*.*")];
});

interface RequestLike {
  id?: unknown;
  method?: unknown;
  routeOptions?: { url?: unknown };
}

/** The route's template, never the URL: cursors and IDs travel in URLs. */
function serializeRequest(request: RequestLike) {
  return { id: request.id, method: request.method, route: request.routeOptions?.url };
}

/**
 * Name, message, code and stack, down the causes. Other members are left out: database and HTTP drivers put rows and
 * answers into theirs.
 */
export function serializeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code, cause } = error as Error & { code?: unknown };
  return {
    type: error.name,
    message: error.message,
    stack: error.stack,
    ...(typeof code === "string" && { code }),
    ...(cause !== undefined && depth < 3 && { cause: serializeError(cause, depth + 1) }),
  };
}

/** The options of every logger of the gateway: ISO times, level names, redaction, and serializers without payload. */
export function loggerOptions(level: string): LoggerOptions {
  return {
    level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: hiddenPaths, censor: "[redacted]" },
    serializers: {
      req: serializeRequest,
      res: (reply: { statusCode?: unknown }) => ({ status: reply.statusCode }),
      err: (error: unknown) => serializeError(error),
      error: (error: unknown) => serializeError(error),
    },
  };
}

/**
 * Makes the process's logger. Without `destination` lines go to stdout, those of a busy moment in one write; an exit
 * flushes them, and only a kill can lose the last few.
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  return pino(loggerOptions(level), destination ?? pino.destination({ dest: 1, sync: false }));
}
