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
 * A log line on its way waits for others at most so long, or until there are so many characters of them. What a reader
 * leaves lying takes at most so many bytes of memory.
 */
const gather = { periodicFlush: 100, minLength: 4_096, maxLength: 16 * 1024 * 1024 };

/**
 * Makes the process's logger. Without `destination` lines go to stdout, several in one write. Warnings and errors take
 * what waits with them at once, an exit flushes the rest, and only a kill can lose the last tenth of a second. When nobody
 * reads them lines are dropped, and a warning says how many as soon as somebody does.
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  if (destination) return pino(loggerOptions(level), destination);
  const stdout = pino.destination({ dest: 1, sync: false, ...gather });
  const logger = pino(loggerOptions(level), urgently(stdout));
  let dropped = 0;
  stdout.on("drop", () => dropped++);
  stdout.on("drain", () => {
    if (dropped === 0) return;
    logger.warn({ dropped }, "log lines were dropped: nobody has read them in time");
    dropped = 0;
  });
  return logger;
}

function urgently(stdout: ReturnType<typeof pino.destination>): DestinationStream {
  return {
    // Has the logger say of each line which level it is of.
    [pino.symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write(this: { lastLevel: number }, line: string) {
      stdout.write(line);
      if (this.lastLevel >= pino.levels.values["warn"]!) stdout.flush();
    },
  } as DestinationStream;
}
