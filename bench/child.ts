import { fork } from "node:child_process";
import { once } from "node:events";

/** A part of the benchmark in a process of its own, so that nobody shares an event loop with who is measured. */
export interface Child {
  /** Sends one request and resolves with its answer. Rejects when the process fails or ends. */
  ask: <Answer>(request: object) => Promise<Answer>;
  stop: () => Promise<void>;
}

type Reply = { answer: unknown } | { error: string };

/** Starts `file`, a path relative to this folder. One request at a time. */
export function startChild(file: string): Child {
  const child = fork(new URL(file, import.meta.url), { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const ended = once(child, "exit");
  return {
    async ask<Answer>(request: object) {
      const replied = once(child, "message") as Promise<[Reply]>;
      child.send(request);
      const reply = await Promise.race([replied.then(([message]) => message), ended.then(() => gone(file))]);
      if ("error" in reply) throw new Error(`${file}: ${reply.error}`);
      return reply.answer as Answer;
    },
    async stop() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

function gone(file: string): Reply {
  return { error: `${file} ended before it answered` };
}

/** In the child: answers each request with what `handle` resolves with. The child ends with its parent. */
export function answerParent(handle: (request: never) => Promise<unknown>): void {
  process.on("message", (request) => {
    handle(request as never).then(
      (answer) => process.send?.({ answer }),
      (error: unknown) => process.send?.({ error: error instanceof Error ? error.stack : String(error) }),
    );
  });
  process.on("disconnect", () => process.exit());
}
