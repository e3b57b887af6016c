import type { FastifyReply } from "fastify";

/** Fires when the client hangs up, so that nothing is waited for in vain; also, later, when the answer is through. */
export function hungUp({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController();
  raw.once("close", () => gone.abort());
  return gone.signal;
}
