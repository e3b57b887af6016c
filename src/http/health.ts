import { setTimeout as delay } from "node:timers/promises";

import { Type } from "typebox";

import { errorAnswers } from "./problem.ts";
import type { HttpServer } from "./server.ts";

/** Something the gateway can't fully work without. `check` rejects when it is not there. */
export interface ReadinessCheck {
  name: string;
  check(): Promise<void>;
  /** False: the gateway takes requests all the same, and says what is wrong. */
  isNeeded?: boolean;
}

export interface HealthOptions {
  checks: readonly ReadinessCheck[];
  stopping: AbortSignal;
  /** A check that takes longer has failed. */
  checkTimeoutMs?: number;
}

const Live = Type.Object({ status: Type.Literal("ok") });
const Ready = Type.Object({
  status: Type.Enum(["ready", "degraded", "not-ready", "stopping"]),
  checks: Type.Record(Type.String(), Type.Enum(["ok", "failed"])),
});

const broken = errorAnswers("invalid-request");
const common = { tags: ["operations"], security: [] };

/**
 * `GET /health/live`: the process runs; restart it when this fails. `GET /health/ready`: send it requests (200, also when
 * it is `degraded`); 503 names the checks that failed, and while the process stops. Why a check failed is in the log, not
 * in the answer.
 */
export function registerHealth(app: HttpServer, options: HealthOptions): void {
  const { checks, stopping, checkTimeoutMs = 2000 } = options;
  app.get(
    "/health/live",
    {
      schema: {
        ...common,
        operationId: "live",
        summary: "Whether the process runs",
        response: { 200: Live, ...broken },
      },
    },
    async () => ({ status: "ok" as const }),
  );
  app.get(
    "/health/ready",
    {
      schema: {
        ...common,
        operationId: "ready",
        summary: "Whether the gateway can take requests",
        response: { 200: Ready, 503: Ready, ...broken },
      },
    },
    async (request, reply) => {
      if (stopping.aborted) return reply.code(503).send({ status: "stopping", checks: {} });
      const failures = await failedChecks(checks, checkTimeoutMs);
      for (const [name, err] of failures) request.log.warn({ err, check: name }, "readiness check failed");
      const results = checks.map(({ name }) => [name, failures.has(name) ? "failed" : "ok"] as const);
      const ready = checks.every(({ name, isNeeded = true }) => !isNeeded || !failures.has(name));
      const status = ready ? (failures.size === 0 ? "ready" : "degraded") : "not-ready";
      return reply.code(ready ? 200 : 503).send({ status, checks: Object.fromEntries(results) });
    },
  );
}

async function failedChecks(checks: readonly ReadinessCheck[], timeoutMs: number) {
  const failures = new Map<string, unknown>();
  const settled = await Promise.allSettled(checks.map(async (check) => await inTime(check, timeoutMs)));
  for (const [index, result] of settled.entries()) {
    const name = checks[index]?.name;
    if (result.status === "rejected" && name !== undefined) failures.set(name, result.reason);
  }
  return failures;
}

async function inTime(check: ReadinessCheck, timeoutMs: number): Promise<void> {
  const over = new AbortController();
  const timeout = delay(timeoutMs, undefined, { signal: over.signal }).then(() => {
    throw new Error(`${check.name} did not answer within ${timeoutMs} ms`);
  });
  try {
    await Promise.race([check.check(), timeout]);
  } finally {
    over.abort();
    timeout.catch(() => {});
  }
}
