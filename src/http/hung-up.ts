import type { FastifyReply } from "fastify";

/** Fires when the client hangs up before it was answered, so that nothing is waited for in vain. */
export function hungUp({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController();
  raw.once("close", () => {
    // Each abort makes an error with a stack: too much for every request that went well.
    if (!raw.writableEnded) gone.abort();
  });
  return gone.signal;
}
