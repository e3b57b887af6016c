import type { Failures, FailureFacts } from "../../connector-module.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { UpstreamError, type Disposition } from "../connector.ts";
import { judge } from "../disposition.ts";
import { excerptOf } from "../redact.ts";
import { retryAfterMs } from "../retry-after.ts";

const messageCharsMax = 200;
const dispositions: readonly Disposition[] = ["retry", "conflict", "reject", "park"];

/** The failures that a module can tell. What it says in them is redacted here, once. */
export function failuresOf({ statuses }: Pick<UpstreamConfig, "statuses">): Failures {
  return {
    notSent: (message, facts) => failure(message, "not-sent", "retry", facts),
    refused: (disposition, message, facts) => failure(message, "refused", disposition, facts),
    unclear: (message, facts) => failure(message, "ambiguous", "retry", facts),
    ofStatus: (operation, { status, headers, body }) =>
      new UpstreamError(`the upstream answered ${status}`, {
        ...judge(status, operation, statuses),
        status,
        retryAfterMs: retryAfterMs(headers as Parameters<typeof retryAfterMs>[0], Date.now()),
        excerpt: excerptOf(Buffer.from(body)),
      }),
  };
}

function failure(
  message: string,
  certainty: UpstreamError["certainty"],
  disposition: Disposition,
  facts: FailureFacts = {},
): UpstreamError {
  // A slip of the author's is thrown in the module itself, and so counts as unclear.
  if (!dispositions.includes(disposition)) throw new TypeError("there is no such disposition");
  const { status, retryAfterMs: waitMs, systemic, excerpt } = facts;
  return new UpstreamError(toPlain(message), {
    certainty,
    disposition,
    systemic: systemic === true,
    status: isStatus(status) ? status : undefined,
    retryAfterMs: isWait(waitMs) ? waitMs : undefined,
    excerpt: excerpt === undefined ? undefined : excerptOf(Buffer.from(excerpt)),
  });
}

/** A short text without addresses and long numbers. */
export function toPlain(text: unknown): string {
  return excerptOf(Buffer.from(String(text))).slice(0, messageCharsMax);
}

function isStatus(status: unknown): status is number {
  return Number.isInteger(status) && (status as number) >= 100 && (status as number) <= 599;
}

const dayMs = 86_400_000;

function isWait(waitMs: unknown): waitMs is number {
  return typeof waitMs === "number" && waitMs >= 0 && waitMs <= dayMs;
}

/** What a module throws that is none of these: it may have taken effect. Its message is not shown, it may quote data. */
export function unforeseen(error: unknown): UpstreamError {
  const name = error instanceof Error ? error.name : "no Error";
  return new UpstreamError(`the connector failed: ${name}`, { certainty: "ambiguous", disposition: "retry" });
}

/** A result of no use. The connector is at fault, whatever the record: the whole's matter, and the call may have taken effect. */
export function nonsense(what: string): UpstreamError {
  return new UpstreamError(`the connector gave ${what}`, {
    certainty: "ambiguous",
    disposition: "retry",
    systemic: true,
  });
}
