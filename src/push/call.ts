import { UpstreamError } from "../upstream/connector.ts";
import { openHttpClient, type HttpAnswer } from "../upstream/http-client.ts";
import { retryAfterMs } from "../upstream/retry-after.ts";
import type { FailureReason, Verdict } from "./service.ts";

/** The push may not be sent any more: its claim is about to lapse. */
export class TooLate extends Error {}

export interface CallOptions {
  connections: number;
  timeoutMs: number;
}

/** Posts to one URL, as the configuration has it. */
export interface Caller {
  /** @throws {UpstreamError} or {@link TooLate}, out of `mayStart`. */
  post: (headers: string[], body: string, mayStart?: () => void) => Promise<HttpAnswer>;
  close: () => Promise<void>;
}

/** Answers are short; a longer one says nothing that is acted upon. */
const answerBytesMax = 64 * 1024;

export function openCaller(url: string, options: CallOptions): Caller {
  const { origin, pathname, search } = new URL(url);
  const client = openHttpClient(origin, { ...options, answerBytesMax });
  return {
    async post(headers, body, mayStart) {
      let forbidden: unknown;
      const lastLook = (): void => {
        try {
          mayStart?.();
        } catch (error) {
          forbidden = error;
          throw error;
        }
      };
      const request = { method: "POST", path: pathname + search, headers, body, mayStart: lastLook };
      // The client tells only that nothing was sent, not by whose will.
      return await client
        .send(request)
        .catch((error: unknown) => Promise.reject((forbidden ?? error) as Error));
    },
    close: async () => await client.close(),
  };
}

/** What a call without an answer means. */
export function withoutAnswer(error: unknown): Verdict {
  if (error instanceof TooLate) {
    return {
      kind: "failed",
      reason: "too-late",
      isUnclear: false,
      detail: "the claim lapsed before it was sent",
    };
  }
  const isUnclear = error instanceof UpstreamError && error.certainty === "ambiguous";
  const detail = error instanceof Error ? error.message : "not an error";
  return { kind: "failed", reason: isUnclear ? "no-answer" : "unreachable", isUnclear, detail };
}

/** What an answer means that says nothing about the address. @param refused what a status of 400 and more means. */
export function failedWith(
  { status, headers }: HttpAnswer,
  detail = `it answered ${status}`,
  refused: FailureReason = "refused",
): Verdict {
  const asked = retryAfterMs(headers, Date.now());
  const waitMs = asked ?? (status === 429 ? rateLimitedMs : undefined);
  return {
    kind: "failed",
    reason: reasonOf(status) ?? refused,
    isUnclear: false,
    retryAfterMs: waitMs,
    detail,
  };
}

/** What FCM asks for where it says 429 and no time. */
const rateLimitedMs = 60_000;

function reasonOf(status: number): FailureReason | undefined {
  if (status === 429) return "rate-limited";
  if (status === 401 || status === 403) return "unauthorized";
  if (status >= 500 || status === 408) return "unavailable";
  return status >= 400 ? undefined : "unexpected";
}
