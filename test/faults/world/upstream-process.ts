import { fork } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";

import type { JournalLine, Marker } from "../upstream/journal.ts";
import type { UpstreamMessage, UpstreamRequest } from "../upstream/main.ts";
import type { Cleanup } from "./cleanup.ts";

/** The system of record, in a process of its own. */
export interface UpstreamProcess {
  url: string;
  ask: (request: UpstreamRequest) => void;
  /** Resolves with whose change is held back unanswered, or with undefined when none came in that time. */
  held: (ms: number) => Promise<Marker | undefined>;
  report: () => Promise<Extract<UpstreamMessage, { told: "report" }>>;
  journal: () => Promise<JournalLine[]>;
}

export async function startUpstreamProcess(
  { journalPath, seed }: { journalPath: string; seed: number },
  cleanup: Cleanup,
): Promise<UpstreamProcess> {
  const child = fork(new URL("../upstream/main.ts", import.meta.url), [journalPath, String(seed)], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const exited = once(child, "exit");
  cleanup.add(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const told = async <T extends UpstreamMessage["told"]>(what: T) => {
    type Wanted = Extract<UpstreamMessage, { told: T }>;
    const { promise, resolve } = Promise.withResolvers<Wanted>();
    const take = (message: UpstreamMessage): void => {
      if (message.told !== what) return;
      child.off("message", take);
      resolve(message as Wanted);
    };
    child.on("message", take);
    return await promise;
  };
  const ask = (request: UpstreamRequest): void => void child.send(request);
  const { port } = await told("ready");
  return {
    url: `http://127.0.0.1:${port}`,
    ask,
    async held(ms) {
      const message = told("held");
      ask({ ask: "hold", ms });
      const none = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ms));
      return (await Promise.race([message, none]))?.marker;
    },
    async report() {
      const answer = told("report");
      ask({ ask: "report" });
      return await answer;
    },
    async journal() {
      const text = await readFile(journalPath, "utf8").catch(() => "");
      return text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as JournalLine);
    },
  };
}
